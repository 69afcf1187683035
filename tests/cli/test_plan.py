"""The verb `plan`: steps compiled for TPU slices that aren't there, in processes of their own."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from vae_jax.cli import main
from vae_jax.cli import plan as verb

REPOSITORY = pathlib.Path(__file__).parents[2]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu isn't installed; pip install 'vae-jax[tpu]'"
)
MNIST = ("--image_shape=28,28,1", "--num_images=60000")
CIFAR10 = ("--image_shape=32,32,3", "--num_images=50000")
TINY = ("--config.model.network.hidden=(4,)", "--config.model.latents=2")


def run_plan(*arguments: str) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, str(REPOSITORY / "main.py"), "plan", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def planned(folder: pathlib.Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """The plan as JSON, and what was printed."""
    output = folder / "plan.json"
    done = run_plan(*arguments, f"--output={output}")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(output.read_text()), done.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("config", "data", "flops"),
    [
        # 784-400-(20, 20) and 20-400-784, by hand: forward, weights, and inputs of all but the first layer.
        ("mnist", MNIST, 2 * (2 * 651_200 + 337_600)),
        # 784-200-200-(50, 50); 50 times 50-200-200-784 with gradients of its inputs too.
        ("mnist_iwae", MNIST, 2 * (2 * 216_800 + 60_000 + 50 * 3 * 206_800)),
        # As the jaxpr of the step has them.
        pytest.param("cifar10", CIFAR10, 3_908_674_560, marks=pytest.mark.manual),
    ],
)
@needs_libtpu
def test_products_of_a_chip_fall_with_their_number(
    config: str, data: tuple[str, ...], flops: int, tmp_path: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    found = []
    for topology, chips in (("v5e:2x4", 8), ("v5e:16x16", 256)):
        file = REPOSITORY / "configs" / f"{config}.py"
        plan, printed = planned(
            tmp_path, f"--config={file}", *data, "--config.train.batch_size=8192", f"--topology={topology}", "--quick"
        )
        assert plan["num_chips"] == plan["used_chips"] == chips
        assert plan["fits"] and "  fits: " in printed
        assert "estimate, not measured" in printed and plan["note"].startswith("estimate, not measured")
        found.append(plan["estimate"]["flops"])
        assert 8192 // chips * flops <= found[-1] <= 1.5 * 8192 // chips * flops
    assert found[0] / found[1] == pytest.approx(32, rel=0.1)


@pytest.mark.long
@needs_libtpu
def test_digits_are_at_hand_and_replicas_count(tmp_path: pathlib.Path) -> None:
    plans = [
        planned(tmp_path, "--topology=v4:2x2x1", "--quick", *TINY, f"--config.num_seeds={seeds}")[0] for seeds in (1, 3)
    ]
    assert [plan["used_chips"] for plan in plans] == [4, 4]
    one, three = (plan["estimate"]["flops"] for plan in plans)
    assert three == pytest.approx(3 * one, rel=0.1)


@pytest.mark.long
@needs_libtpu
def test_chips_that_have_nothing_to_do_are_named(tmp_path: pathlib.Path) -> None:
    plan, printed = planned(tmp_path, "--topology=v4:2x2x1", "--quick", *TINY, "--config.train.batch_size=6")
    assert plan["used_chips"] == 3
    assert "1 of 4 chips would have nothing to do; --config.train.batch_size=8 uses all" in printed


@pytest.mark.long
@needs_libtpu
def test_what_does_not_fit_is_an_answer(tmp_path: pathlib.Path) -> None:
    large = ("--image_shape=64,64,3", "--num_images=20000000", "--config.data.resident_mb=10000000")
    output = tmp_path / "plan.json"
    done = run_plan("--topology=v5e:1x1", "--quick", *TINY, *large, f"--output={output}")
    assert (done.returncode, done.stderr) == (1, "")
    plan, printed = json.loads(output.read_text()), done.stdout
    assert not plan["fits"]
    assert plan["memory"]["needed"] > plan["memory"]["available"]
    assert "does not fit: " in printed and "--config.train.accumulation" in printed


ERRORS = {
    "no topology": ([], ["--topology=v5e:2x4"]),
    "unknown chip": (["--topology=v9:2x2"], ["'v9'", "v5e"]),
    "unknown topology": (["--topology=v5e:3x3"], ["v5e:3x3", "--topology"]),
    "chips that don't divide": (["--topology=v5e:16x16", "--config.train.batch_size=100"], ["100", "batch_size=64"]),
    "some chips idle": (["--topology=v5e:2x4", "--config.train.batch_size=4"], ["4 of the 8 chips", "batch_size=8"]),
    "half of the shape": (["--topology=v5e:2x4", "--num_images=100"], ["--image_shape", "--num_images"]),
    "no shape": (["--topology=v5e:2x4", "--num_images=100", "--image_shape=28"], ["'28'", "28,28,1"]),
    "data elsewhere": (
        ["--topology=v5e:2x4", "--config.data.source=tfds", "--config.data.name=mnist", "--config.data.dir=nowhere"],
        ["mnist", "downloads nothing", "--image_shape"],
    ),
    "file elsewhere": (
        ["--topology=v5e:2x4", "--config.data.source=npz", "--config.data.path=nothing.npz"],
        ["nothing.npz", "--image_shape"],
    ),
    "output of another kind": (["--topology=v5e:2x4", "--output=plan.txt"], ["plan.txt", ".json"]),
    "config of no model": (["--topology=v5e:2x4", "--config.model.latents=0"], ["model.latents"]),
    "objective of no model": (["--topology=v5e:2x4", "--config.objective=elb"], ["'elb'", "elbo"]),
}


@pytest.mark.long
@needs_libtpu
@pytest.mark.parametrize(("arguments", "named"), ERRORS.values(), ids=ERRORS)
def test_mistakes_are_one_line(arguments: list[str], named: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", *arguments])
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("vae-jax: error: ") and line.count("\n") == 1
    for text in named:
        assert text in line


def test_missing_libtpu_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(verb.importlib.util, "find_spec", lambda name: None if name == "libtpu" else found(name))
    with pytest.raises(SystemExit) as caught:
        main(["plan", "--topology=v5e:2x4"])
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "pip install libtpu" in line


def test_a_process_that_dies_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(verb.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(verb, "_CHILD", "import sys; print('noise', file=sys.stderr); raise ValueError('the reason')")
    with pytest.raises(SystemExit) as caught:
        main(["plan", "--topology=v5e:2x4"])
    assert caught.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "ValueError: the reason" in line and "noise" not in line
