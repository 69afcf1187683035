"""SIGINT and SIGTERM: training saves a checkpoint and exits with status 75, and the same command continues."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from harms import some_manual
from PIL import Image

from vae_jax.cli import main
from vae_jax.runs import checkpoints

pytestmark = pytest.mark.long

REPOSITORY = pathlib.Path(__file__).parents[2]
SMALL = ["--config.model.latents=3", "--config.train.log_every=100", "--config.train.report=False"]
MLP = ["--config.model.network.hidden=(8,)"]
CONV = ["--config.model.network=conv", "--config.model.network.hidden=(4,)", "--config.train.batch_size=8"]
ENDLESS = ["--config.train.num_steps=100000000", "--config.train.checkpoint_every=100000000"]


def when_training(workdir: pathlib.Path, act) -> threading.Thread:
    """Does something once a run has written its first row."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            path = workdir / "metrics.jsonl"
            if path.is_file() and path.read_text():
                act()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def newest(workdir: pathlib.Path) -> checkpoints.Checkpoint:
    return checkpoints.choose(workdir / "checkpoints", "latest")


def rows(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("number", "network"), [(signal.SIGTERM, MLP), pytest.param(signal.SIGINT, CONV, marks=pytest.mark.manual)]
)
def test_stopped_run_continues_bit_for_bit(
    number: signal.Signals, network: list[str], tmp_path: pathlib.Path, capfd: pytest.CaptureFixture
) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    thread = when_training(stopped, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as caught:
        main([f"--workdir={stopped}", *SMALL, *network, *ENDLESS])
    thread.join()
    assert caught.value.code == 75
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    step = newest(stopped).step
    *_, asked, ended = capfd.readouterr().err.splitlines()
    assert asked == "vae-jax: saving a checkpoint, then stopping; a second signal stops at once"
    assert ended == (f"vae-jax: stopped and saved at step {step} of 100000000; the same command continues from there")
    assert step >= 100 and newest(stopped).score is None
    # The last row covers the steps since the row before.
    assert rows(stopped)[-1]["step"] == step

    rest = [f"--config.train.num_steps={step + 30}", "--config.train.checkpoint_every=100000000"]
    for workdir in (stopped, whole):
        main([f"--workdir={workdir}", *SMALL, *network, *rest])
    ours, theirs = (jax.tree.leaves(checkpoints.load(newest(workdir))) for workdir in (stopped, whole))
    assert all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(ours, theirs, strict=True))
    steps = [row["step"] for row in rows(stopped) if row["split"] == "train"]
    assert steps == sorted({*range(100, step + 30, 100), step, step + 30})


def start(*arguments: str, devices: int = 1) -> subprocess.Popen:
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen(
        [sys.executable, "main.py", *SMALL, *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_second_signal_ends_at_once(tmp_path: pathlib.Path) -> None:
    process = start(f"--workdir={tmp_path / 'run'}", *MLP, *ENDLESS)

    def twice() -> None:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)

    when_training(tmp_path / "run", twice).join()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "vae-jax: stopped at once; the last checkpoint is good"


@pytest.mark.manual
def test_closed_terminal_saves_a_checkpoint(tmp_path: pathlib.Path) -> None:
    ours, its = os.openpty()
    command = [sys.executable, "main.py", *SMALL, *MLP, *ENDLESS, f"--workdir={tmp_path / 'run'}"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)

    def hang_up() -> None:
        os.close(ours)
        process.send_signal(signal.SIGHUP)

    when_training(tmp_path / "run", hang_up).join()
    assert process.wait(timeout=120) == 75
    assert newest(tmp_path / "run").step == rows(tmp_path / "run")[-1]["step"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
@pytest.mark.parametrize("seconds", some_manual([0.5, 1.0, 1.5, 2.0, 2.5], quick=[1.0]))
def test_signal_before_training_ends_at_once(
    number: signal.Signals, status: int, seconds: float, tmp_path: pathlib.Path
) -> None:
    """During imports, reading of data or compilation, where an exception would be lost."""
    process = start(f"--workdir={tmp_path / 'run'}", *MLP, *ENDLESS)
    time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    (line,) = errors.strip().splitlines()[-1:]
    if "saving a checkpoint" in errors:
        assert process.returncode == 75 and line.startswith("vae-jax: stopped and saved at step")
    else:
        assert process.returncode == status
        assert errors.strip() == "vae-jax: stopped; the same command starts again, or continues from what is saved"


@pytest.mark.manual
def test_decoding_processes_stop_too(tmp_path: pathlib.Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(40):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(pictures / f"{number}.png")
    folder = ["--config.data.source=folder", f"--config.data.dir={pictures}", "--config.data.resident_mb=0"]
    workers = ["--config.data.workers=2", "--config.train.batch_size=8"]
    process = start(f"--workdir={tmp_path / 'run'}", *MLP, *ENDLESS, *folder, *workers)
    # Like a terminal: the signal goes to all processes of the command.
    when_training(tmp_path / "run", lambda: os.killpg(process.pid, signal.SIGINT)).join()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "Traceback" not in errors
    assert newest(tmp_path / "run").step == rows(tmp_path / "run")[-1]["step"]
    deadline = time.monotonic() + 30
    while group_exists(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
