"""The verb `benchmark` on a tiny model: what it writes, and that its numbers fit together."""

import json
import math
import pathlib

import numpy as np
import pytest
from PIL import Image

from vae_jax.cli import main
from vae_jax.performance import benchmark

TINY = ["--config.model.network.hidden=(8,)", "--config.model.latents=2", "--repeats=2", "--steps=3"]
BATCH, PIXELS, HIDDEN, LATENTS = 64, 64, 8, 2


@pytest.fixture(autouse=True)
def own_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the checkout, or waits for precise times on devices that share two cores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "_LARGE", {"cpu": (64, 1)})


def measured(*arguments: str) -> dict:
    """What the verb writes for a tiny model, as strict readers take it."""
    main(["benchmark", *TINY, *arguments])
    path = pathlib.Path("benchmark.json")
    result = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{path} has {name}"))
    check(result)
    return result


def spreads(tree: dict) -> list[dict]:
    """Every median with its range."""
    if set(tree) == {"median", "minimum", "maximum"}:
        return [tree]
    nested = [value for value in tree.values() if isinstance(value, dict)]
    nested += [each for value in tree.values() if isinstance(value, list) for each in value if isinstance(each, dict)]
    return [found for branch in nested for found in spreads(branch)]


def check(result: dict) -> None:
    """What has to be so of any measurement."""
    for values in spreads(result):
        assert 0 <= values["minimum"] <= values["median"] <= values["maximum"] < math.inf
    step, large = result["step"], result["large_product"]
    fastest, slowest = step["seconds"]["minimum"], step["seconds"]["maximum"]
    assert fastest > 0 and large["flops_per_second"]["minimum"] > 0
    assert step["images_per_second"]["maximum"] == pytest.approx(step["images"] / fastest)
    lowest = step["flops"] / slowest / large["flops_per_second"]["maximum"]
    assert large["share_reached"]["minimum"] >= lowest * (1 - 1e-9)
    assert result["compilation"]["trace_and_lower_seconds"] > 0 and result["compilation"]["compile_seconds"] > 0
    assert result["memory_bytes"]["process_peak"] > 0
    assert result["machine"]["versions"]["jax"] and result["machine"]["devices"]


@pytest.mark.long
def test_digits(capsys: pytest.CaptureFixture) -> None:
    result = measured()
    assert result["settings"] == {"repeats": 2, "steps_at_once": 3, "steps_per_call": 100}
    sizes = [PIXELS * HIDDEN, HIDDEN * LATENTS, HIDDEN * LATENTS, LATENTS * HIDDEN, HIDDEN * PIXELS]
    products = 2 * BATCH * (3 * sum(sizes) - PIXELS * HIDDEN)
    # Hashes for the order and the noise count too, on each of eight devices.
    assert products <= result["step"]["flops"] <= products + 2e7
    assert (result["step"]["images"], result["step"]["replicas"], result["step"]["devices"]) == (BATCH, 1, 8)
    assert result["share_waited_for_images"] is None
    assert result["memory_bytes"]["compiled_total"] > 64 * 1000
    assert result["config"]["model.latents"] == 2 and result["data"]["image_shape"] == [8, 8, 1]
    assert result["machine"]["devices"] == ["cpu: cpu"] * 8
    out, err = capsys.readouterr()
    assert err == "" and "images per second" in out and "all of it is in benchmark.json" in out


@pytest.mark.manual
def test_replicas_of_random_images() -> None:
    random = ["--image_shape=4,3,2", "--num_images=70", "--config.model.conditional=True"]
    result = measured(*random, "--config.num_seeds=2", "--config.train.batch_size=5", "--config.train.log_every=2")
    assert (result["step"]["images"], result["step"]["replicas"], result["step"]["devices"]) == (10, 2, 5)
    # Three steps at once need two calls.
    assert result["settings"] == {"repeats": 2, "steps_at_once": 3, "steps_per_call": 2}
    assert result["data"] == {"name": "random images", "num_images": 70, "image_shape": [4, 3, 2]}


@pytest.mark.manual
def test_convolutions_and_accumulation() -> None:
    network = ["--config.model.network=conv", "--config.train.accumulation=4", "--config.train.batch_size=8"]
    result = measured("--image_shape=8,8,1", "--num_images=20", *network)
    assert result["settings"]["steps_per_call"] == 1


@pytest.mark.manual
def test_images_in_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(30):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    source = ["--config.data.source=folder", "--config.data.dir=images", "--config.data.resident_mb=0"]
    result = measured(*source, "--config.data.workers=0", "--config.train.batch_size=8")
    assert 0 < result["share_waited_for_images"]["median"] < 1


@pytest.mark.manual
def test_number_of_steps_and_place_of_the_file() -> None:
    main(
        [
            "benchmark",
            "--repeats=1",
            "--config.model.network.hidden=()",
            "--config.model.latents=1",
            "--output=new/b.json",
        ]
    )
    result = json.loads(pathlib.Path("new/b.json").read_text())
    assert 1 <= result["settings"]["steps_at_once"] <= 100


BAD = {
    "no such shape": (["--image_shape=28x28"], ["28x28", "--image_shape=28,28,1"]),
    "empty images": (["--image_shape=0,28,1"], ["0,28,1", "--image_shape="]),
    "batch too large": (["--image_shape=4,4,1", "--num_images=5"], ["train.batch_size is 64", "5"]),
    "no repeats": (["--repeats=0"], ["repeats"]),
    "negative steps": (["--steps=-1"], ["steps"]),
    "a folder": (["--output=folder"], ["--output is 'folder' but must end in .json"]),
    "below a file": (["--output=file/benchmark.json"], ["file", "--output"]),
    "a likelihood that doesn't fit": (
        ["--image_shape=4,4,1", "--config.model.likelihood=gaussian"],
        ["data.binarization"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, capsys: pytest.CaptureFixture) -> None:
    arguments, wanted = BAD[name]
    pathlib.Path("folder").mkdir()
    pathlib.Path("file").write_text("")
    with pytest.raises(SystemExit) as caught:
        main(["benchmark", *TINY, *arguments])
    assert caught.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("vae-jax: error: ") and errors.count("\n") == 1
    assert [word for word in wanted if word not in errors] == []
    assert sorted(path.name for path in pathlib.Path().iterdir()) == ["file", "folder"]
