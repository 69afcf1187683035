"""The verb `plan`: steps compiled for TPU slices that aren't there, in processes of their own."""

import importlib.util
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from tiny_runs import MODEL, read_json

from vae_jax.cli import plan as verb

REPOSITORY = pathlib.Path(__file__).parents[2]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu isn't installed; pip install 'vae-jax[tpu]'"
)


def planned(status: int, *arguments: str) -> tuple[dict[str, Any], str]:
    """The plan as JSON, and what was printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    command = [sys.executable, str(REPOSITORY / "main.py"), "plan", "--quick", *arguments, "--output=plan.json"]
    done = subprocess.run(command, env={**environment, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, "")
    return read_json(pathlib.Path("plan.json")), done.stdout


@pytest.mark.long
@needs_libtpu
def test_replicas_idle_chips_and_too_much_data_are_answers() -> None:
    slice_of_four = ("--topology=v4:2x2x1", *MODEL)
    one, three = (planned(0, *slice_of_four, f"--config.num_seeds={seeds}")[0] for seeds in (1, 3))
    assert three["estimate"]["flops"] == pytest.approx(3 * one["estimate"]["flops"], rel=0.1)
    plan, printed = planned(0, *slice_of_four, "--config.train.batch_size=6")
    assert plan["used_chips"] == 3
    assert "1 of 4 chips would have nothing to do; --config.train.batch_size=8 uses all" in printed
    large = ("--image_shape=64,64,3", "--num_images=20000000", "--config.data.resident_mb=10000000")
    plan, printed = planned(1, "--topology=v5e:1x1", *MODEL, *large)
    assert not plan["fits"] and plan["memory"]["needed"] > plan["memory"]["available"]
    assert "does not fit: " in printed and "--config.train.accumulation" in printed


@pytest.mark.long
@needs_libtpu
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--topology=v5e:2x4"),
        (["--topology=v5e:3x3"], "v5e:3x3"),
        (["--topology=v5e:16x16", "--config.train.batch_size=100"], "batch_size=64"),
        (["--topology=v5e:2x4", "--config.train.batch_size=4"], "4 of the 8 chips"),
        (["--topology=v5e:2x4", "--num_images=100"], "--image_shape"),
        (["--topology=v5e:2x4", "--config.data.source=tfds", "--config.data.name=mnist"], "downloads nothing"),
        (["--topology=v5e:2x4", "--output=plan.txt"], ".json"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str, refused) -> None:
    assert words in refused("plan", *arguments)


def test_missing_libtpu_is_one_line(monkeypatch: pytest.MonkeyPatch, refused) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(verb.importlib.util, "find_spec", lambda name: None if name == "libtpu" else found(name))
    assert "pip install libtpu" in refused("plan", "--topology=v5e:2x4")


def test_a_process_that_dies_is_one_line(monkeypatch: pytest.MonkeyPatch, refused) -> None:
    monkeypatch.setattr(verb.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(verb, "_CHILD", "import sys; print('noise', file=sys.stderr); raise ValueError('the reason')")
    message = refused("plan", "--topology=v5e:2x4")
    assert "ValueError: the reason" in message and "noise" not in message
