"""The verb `plan`: steps compiled for TPU slices that aren't there, in processes of their own."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from vae_jax.cli import main
from vae_jax.cli import plan as verb

REPOSITORY = pathlib.Path(__file__).parents[2]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu isn't installed; pip install 'vae-jax[tpu]'"
)
TINY = ("--config.model.network.hidden=(4,)", "--config.model.latents=2")


def run_plan(*arguments: str) -> subprocess.CompletedProcess:
    """The command line in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, str(REPOSITORY / "main.py"), "plan", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def planned(*arguments: str) -> str:
    """What was printed."""
    done = run_plan(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.long
@needs_libtpu
def test_what_fits_and_how_long_it_takes() -> None:
    config, data = f"--config={REPOSITORY / 'configs' / 'mnist.py'}", ("--image_shape=28,28,1", "--num_images=60000")
    printed = planned(config, *data, "--config.train.batch_size=8192", "--topology=v5e:16x16")
    assert "a batch of 8192 images over 256 chips" in printed and "  fits: " in printed
    assert "estimate, not measured" in printed
    # 784-400-(20, 20) and 20-400-784, by hand: forward, weights, and inputs of all but the first layer.
    flops = 8192 // 256 * 2 * (2 * 651_200 + 337_600)
    found = re.search(r"for ([\d.]+) MFLOP a chip", printed)
    assert found and flops <= 1e6 * float(found[1]) <= 1.5 * flops


@pytest.mark.long
@needs_libtpu
def test_chips_that_have_nothing_to_do_are_named() -> None:
    printed = planned("--topology=v4:2x2x1", *TINY, "--config.train.batch_size=6", "--config.num_seeds=3")
    assert "a batch of 6 images over 3 chips, 3 replicas" in printed
    assert "1 of 4 chips would have nothing to do; --config.train.batch_size=8 uses all" in printed


@pytest.mark.long
@needs_libtpu
def test_what_does_not_fit_is_an_answer() -> None:
    large = ("--image_shape=64,64,3", "--num_images=20000000", "--config.data.resident_mb=10000000")
    done = run_plan("--topology=v5e:1x1", *TINY, *large)
    assert (done.returncode, done.stderr) == (1, "")
    assert "does not fit: " in done.stdout and "--config.train.accumulation" in done.stdout


ERRORS = {
    "no topology": ([], ["--topology=v5e:2x4"]),
    "unknown chip": (["--topology=v9:2x2"], ["v9:2x2", "v5e"]),
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
