"""A run that is killed and started again ends as the run that was never killed, bit for bit."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from vae_jax.cli import main
from vae_jax.runs import checkpoints

REPOSITORY = pathlib.Path(__file__).parents[2]
SMALL = [
    *("--config.model.network.hidden=(16,)", "--config.model.latents=3", "--config.train.log_every=7"),
    "--config.train.report=False",
]
NUM_STEPS = 120


def start(workdir: pathlib.Path) -> subprocess.Popen:
    """A real process, without the simulated devices of the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    arguments = [
        f"--workdir={workdir}",
        f"--config.train.num_steps={NUM_STEPS}",
        "--config.train.checkpoint_every=10",
        "--config.train.ema_decay=0.9",
        *SMALL,
    ]
    return subprocess.Popen(
        [sys.executable, "main.py", *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def saved(workdir: pathlib.Path) -> dict:
    return checkpoints.load(checkpoints.choose(workdir / "checkpoints", "latest"))


def rows(workdir: pathlib.Path) -> list[dict]:
    """All metrics but the one that is a matter of time."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "images_per_second"} for line in lines]


def assert_same_bits(ours: dict, theirs: dict) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def train(workdir: pathlib.Path, num_steps: int, *arguments: str) -> None:
    main([f"--workdir={workdir}", f"--config.train.num_steps={num_steps}", *SMALL, *arguments])


def kill_in_the_middle(workdir: pathlib.Path) -> int:
    """Starts a run and kills it without warning; the step of its last checkpoint."""
    process = start(workdir)
    deadline = time.monotonic() + 120
    while len(checkpoints.listing(workdir / "checkpoints")) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return checkpoints.listing(workdir / "checkpoints")[-1].step


@pytest.mark.manual
def test_killed_run_ends_as_the_run_never_killed(tmp_path: pathlib.Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    reached = kill_in_the_middle(killed)
    assert 0 < reached < NUM_STEPS
    # A row from beyond the checkpoint and a line cut in half, as a kill may leave them.
    with (killed / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": reached + 1, "split": "train", "elbo": 0.0}) + '\n{"step": 1')
    continued, uninterrupted = start(killed), start(whole)
    assert f"continuing {killed} at step {reached}" in finish(continued)
    finish(uninterrupted)

    state = saved(killed)
    assert int(state["step"]) == NUM_STEPS
    assert set(state) == {"step", "params", "opt_state", "average"}
    assert_same_bits(state, saved(whole))

    assert rows(killed) == rows(whole)
    steps = [row["step"] for row in rows(killed) if row["split"] == "train"]
    assert steps == sorted({*range(7, NUM_STEPS, 7), *range(10, NUM_STEPS + 1, 10)})

    starts = [len(json.loads((run / "manifest.json").read_text())["starts"]) for run in (killed, whole)]
    assert starts == [2, 1]


def test_more_steps_continue(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    continued, at_once = tmp_path / "continued", tmp_path / "at_once"
    train(continued, 7)
    train(continued, 14)
    assert f"continuing {continued} at step 7 of 14" in capsys.readouterr().out
    train(at_once, 14)
    assert_same_bits(saved(continued), saved(at_once))


@pytest.mark.long
def test_damaged_checkpoint_is_passed_over(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    every = "--config.train.checkpoint_every=7"
    train(tmp_path / "damaged", 14, every)
    untouched = saved(tmp_path / "damaged")
    newest = checkpoints.choose(tmp_path / "damaged" / "checkpoints", "latest")
    largest = max((newest.folder / "state").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    train(tmp_path / "damaged", 14, every)
    said = capsys.readouterr().out
    assert f"{newest.folder} is damaged" in said and "at step 7 of 14" in said
    assert_same_bits(saved(tmp_path / "damaged"), untouched)


@pytest.mark.long
def test_init_from_starts_from_the_others_parameters(tmp_path: pathlib.Path) -> None:
    train(tmp_path / "first", 7)
    # Steps of length zero leave the parameters where they started.
    still = ["--config.train.optimizer=sgd", "--config.train.learning_rate=0.0", "--config.seed=1"]
    train(tmp_path / "second", 2, f"--init_from={tmp_path / 'first'}", *still)
    assert_same_bits(saved(tmp_path / "second")["params"], saved(tmp_path / "first")["params"])


@pytest.mark.manual
def test_init_from_takes_the_average_where_one_is_kept(tmp_path: pathlib.Path) -> None:
    train(tmp_path / "first", 7, "--config.train.ema_decay=0.5")
    first = saved(tmp_path / "first")
    still = ["--config.train.optimizer=sgd", "--config.train.learning_rate=0.0"]
    train(tmp_path / "second", 1, f"--init_from={tmp_path / 'first'}", *still)
    params = saved(tmp_path / "second")["params"]
    assert_same_bits(params, first["average"])
    assert np.any(params["decoder"]["Dense_0"]["kernel"] != first["params"]["decoder"]["Dense_0"]["kernel"])
