"""The verb `benchmark` on a tiny model: what it writes, and that its numbers fit together."""

import json
import math
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from vae_jax.cli import main
from vae_jax.performance import benchmark

TINY = ["--config.model.network.hidden=(8,)", "--config.model.latents=2", "--repeats=2", "--steps=3"]
BATCH, PIXELS, HIDDEN, LATENTS = 64, 64, 8, 2


@pytest.fixture(autouse=True)
def own_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """No test writes into the checkout, or waits for precise times on devices that share two cores."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "_LARGE", {"cpu": 64})
    yield
    jax.config.update("jax_enable_compilation_cache", True)


def measured(*arguments: str) -> dict:
    """What the verb writes for a tiny model, as strict readers take it."""
    main(["benchmark", *TINY, *arguments])
    path = pathlib.Path("benchmark.json")
    result = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{path} has {name}"))
    check(result)
    return result


def check(result: dict) -> None:
    """What has to be so of any measurement."""
    rate, seconds = result["large_product"]["flops_per_second"], result["seconds"]
    for values in (seconds, result["images_per_second"], rate, result["share_of_large_product"]):
        assert 0 < values["minimum"] <= values["median"] <= values["maximum"] < math.inf
    assert result["images_per_second"]["maximum"] == pytest.approx(result["images"] / seconds["minimum"])
    lowest = result["flops"] / seconds["maximum"] / rate["maximum"]
    assert result["share_of_large_product"]["minimum"] >= lowest * (1 - 1e-9)
    assert result["compile_seconds"] > 0
    assert result["machine"]["versions"]["jax"] and result["machine"]["devices"]


@pytest.mark.long
def test_digits(capsys: pytest.CaptureFixture) -> None:
    result = measured()
    assert (result["repeats"], result["steps_at_once"]) == (2, 3)
    sizes = [PIXELS * HIDDEN, HIDDEN * LATENTS, HIDDEN * LATENTS, LATENTS * HIDDEN, HIDDEN * PIXELS]
    products = 2 * BATCH * (3 * sum(sizes) - PIXELS * HIDDEN)
    # Hashes for the order and the noise count too, on each of eight devices.
    assert products <= result["flops"] <= products + 2e7
    assert (result["images"], result["devices"]) == (BATCH, 8)
    assert result["memory"]["needed"] > 64 * 1000
    assert result["config"]["model.latents"] == 2 and result["data"]["image_shape"] == [8, 8, 1]
    assert result["machine"]["devices"] == ["cpu: cpu"] * 8
    out, err = capsys.readouterr()
    assert err == "" and "images per second" in out and "all of it is in benchmark.json" in out


@pytest.mark.manual
def test_replicas_of_random_images() -> None:
    random = ["--image_shape=4,3,2", "--num_images=70", "--config.model.conditional=True"]
    result = measured(*random, "--config.num_seeds=2", "--config.train.batch_size=5", "--config.train.log_every=2")
    # Three steps at once need two calls.
    assert (result["images"], result["devices"], result["steps_at_once"]) == (10, 5, 3)
    assert result["data"] == {"name": "random images", "num_images": 70, "image_shape": [4, 3, 2]}


@pytest.mark.manual
def test_convolutions_and_accumulation() -> None:
    network = ["--config.model.network=conv", "--config.train.accumulation=4", "--config.train.batch_size=8"]
    measured("--image_shape=8,8,1", "--num_images=20", *network)


@pytest.mark.manual
def test_images_in_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "images").mkdir()
    for index in range(30):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.png")
    source = ["--config.data.source=folder", "--config.data.dir=images", "--config.data.resident_mb=0"]
    measured(*source, "--config.data.workers=0", "--config.train.batch_size=8")


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
    assert 1 <= result["steps_at_once"] <= 100


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
