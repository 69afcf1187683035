"""SIGINT and SIGTERM: training saves a checkpoint and exits with status 75, and the same command continues.

`VAE_JAX_TIMES=200 pytest -n 0 -m manual tests/cli/test_stopping.py -k random` stops commands of all verbs that often.
"""

import dataclasses
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from runs_that_die import SECONDS_TO_LIVE, Command
from tiny_runs import TINY, bits, rows

from vae_jax.cli import main
from vae_jax.runs import checkpoints

REPOSITORY = pathlib.Path(__file__).parents[2]
TIMES = int(os.environ.get("VAE_JAX_TIMES", "20"))
ENDLESS = 100_000_000


def stop(command: Command, *numbers: signal.Signals) -> tuple[int, list[str]]:
    """Sends signals once a run has written its first row; its status, and the lines that it said."""
    (process,) = command.start()
    command.wait_for([process], command.has_rows)
    for number in numbers:
        process.send_signal(number)
    status = process.wait(timeout=SECONDS_TO_LIVE)
    return status, [line for line in command.said().splitlines() if line.startswith("vae-jax: ")]


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.manual)])
def test_a_stopped_run_continues_bit_for_bit(number: signal.Signals, tmp_path: pathlib.Path) -> None:
    command = Command(tmp_path / "stopped", ENDLESS, every=ENDLESS)
    status, (*_, asked, ended) = stop(command, number)
    (saved,) = checkpoints.listing(command.workdir / "checkpoints")
    assert status == 75 and saved.score is None
    assert asked == "vae-jax: saving a checkpoint, then stopping; a second signal stops at once"
    assert (
        ended == f"vae-jax: stopped and saved at step {saved.step} of {ENDLESS}; the same command continues from there"
    )
    # The last row covers the steps since the row before.
    assert rows(command.workdir)[-1]["step"] == saved.step
    rest = dataclasses.replace(command, num_steps=saved.step + 30)
    rest.finish()
    whole = dataclasses.replace(rest, workdir=tmp_path / "whole")
    whole.finish()
    assert bits(rest.workdir) == bits(whole.workdir)
    steps = [row["step"] for row in rows(rest.workdir) if row["split"] == "train"]
    assert steps == sorted({*range(3, saved.step + 30, 3), saved.step, saved.step + 30})


@pytest.mark.long
def test_a_second_signal_ends_at_once(tmp_path: pathlib.Path) -> None:
    status, lines = stop(Command(tmp_path / "run", ENDLESS, every=ENDLESS), signal.SIGINT, signal.SIGTERM)
    assert (status, lines[-1]) == (130, "vae-jax: stopped at once; the last checkpoint is good")


VERBS = ("train", "evaluate", "diagnose", "sample", "encode", "interpolate", "report", "score")
# By status; once all is done, on its way out, Python lets go of signals.
ENDS = {
    signal.SIGINT: {130: "vae-jax: stopped; ", 75: "vae-jax: stopped and saved at", 0: "", -signal.SIGINT: ""},
    signal.SIGTERM: {75: "vae-jax: stopped", 0: "", -signal.SIGTERM: ""},
}


def stop_after(seconds: float, number: signal.Signals, *words: str) -> None:
    """Before 0.3 s the interpreter itself is at its start."""
    command = [sys.executable, str(REPOSITORY / "main.py"), *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    *_, last = ["", *errors.strip().splitlines()]
    assert process.returncode in ENDS[number] and "Traceback" not in errors, errors
    assert last.startswith(ENDS[number][process.returncode])


@pytest.mark.long
@pytest.mark.parametrize("number", ENDS)
def test_a_signal_before_training_ends_at_once(number: signal.Signals, tmp_path: pathlib.Path) -> None:
    """During imports, reading of data or compilation, where an exception would be lost."""
    stop_after(1.0, number, f"--workdir={tmp_path / 'run'}", *TINY)


@pytest.mark.manual
def test_verbs_that_are_stopped_at_random_leave_the_run_whole(run: pathlib.Path, finished: pathlib.Path) -> None:
    rng, more = random.Random(0), [*TINY, "--config.train.num_steps=300"]
    for _ in range(TIMES):
        verb = rng.choice(VERBS)
        stop_after(rng.uniform(0.3, 6.0), rng.choice(list(ENDS)), verb, f"--workdir={run}", *more * (verb == "train"))
    whole = shutil.copytree(finished, run.with_name("whole"))
    for workdir in (run, whole):
        main([f"--workdir={workdir}", *more])
    assert bits(run) == bits(whole)
