"""Two processes with two devices each are one run: the numbers of a single process, one writer, and a way on."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from vae_jax.cli import main
from vae_jax.errors import UserError
from vae_jax.processes import _several_are_announced, join
from vae_jax.runs import checkpoints

REPOSITORY = pathlib.Path(__file__).parents[2]
SMALL = [
    *("--config.model.network.hidden=(16,)", "--config.model.latents=3", "--config.train.checkpoint_every=20"),
    "--config.train.report=False",
]


def start(workdir: pathlib.Path, *arguments: str, devices: int = 2, processes: int = 2) -> list[subprocess.Popen]:
    """Real processes that find each other by a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    several = [f"--coordinator_address={address}", f"--num_processes={processes}"] if processes > 1 else []
    return [
        subprocess.Popen(
            [sys.executable, "main.py", f"--workdir={workdir}", *SMALL, *several, *own, *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own in ([[f"--process_id={index}"] for index in range(processes)] if processes > 1 else [[]])
    ]


def finish(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Exit status, output without the transport's own words, and errors of each."""
    ended = []
    for process in processes:
        output, errors = process.communicate(timeout=180)
        # Threads of Gloo speak at once, and may tear each other's lines apart.
        of_gloo = ("[Gloo]", "connected peer ranks")
        spoken = "\n".join(line for line in output.splitlines() if not any(words in line for words in of_gloo))
        ended.append((process.returncode, spoken, errors))
    return ended


def rows(workdir: pathlib.Path) -> list[dict]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "images_per_second"} for line in lines]


def assert_close(ours: list[dict], theirs: list[dict]) -> None:
    assert [(row["step"], row["split"]) for row in ours] == [(row["step"], row["split"]) for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for name in ("elbo", "reconstruction", "kl"):
            np.testing.assert_allclose(one[name], other[name], rtol=2e-4, err_msg=f"{name} at step {one['step']}")


@pytest.mark.long
def test_two_processes_are_one_run_that_a_single_one_continues(tmp_path: pathlib.Path) -> None:
    steps = "--config.train.num_steps={}".format
    together, alone = tmp_path / "together", tmp_path / "alone"
    report = "--config.train.report=True"
    ended = finish([*start(together, steps(40), report), *start(alone, steps(60), devices=1, processes=1)])
    assert [status for status, _, _ in ended] == [0, 0, 0], [errors for _, _, errors in ended]
    assert "everything is in" in ended[0][1] and ended[1][1] == ""
    # The first of two processes writes it, without the other's help.
    assert "</html>" in (together / "report.html").read_text() and not (alone / "report.html").exists()
    assert_close(rows(together), [row for row in rows(alone) if row["step"] <= 40])
    # One device of this process goes on where four of two processes were.
    main([f"--workdir={together}", *SMALL, steps(60)])
    assert_close(rows(together), rows(alone))


@pytest.mark.manual
def test_process_that_disappears_leaves_a_whole_checkpoint(tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    processes = start(workdir, "--config.train.num_steps=100000")
    deadline = time.monotonic() + 120
    while len(checkpoints.listing(workdir / "checkpoints")) < 2:
        assert all(process.poll() is None for process in processes), finish(processes)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # The first one: the others notice at once, where they take a minute to miss any other.
    processes[0].send_signal(signal.SIGKILL)
    ended = finish(processes)
    assert ended[0][0] == -signal.SIGKILL and ended[1][0] != 0
    saved = checkpoints.listing(workdir / "checkpoints")
    assert all(checkpoints.damage(checkpoint) is None for checkpoint in saved)
    main([f"--workdir={workdir}", *SMALL, f"--config.train.num_steps={saved[-1].step + 5}"])
    assert rows(workdir)[-1]["step"] == saved[-1].step + 5


@pytest.mark.long
def test_batch_that_processes_do_not_divide_is_refused_by_each(tmp_path: pathlib.Path) -> None:
    ended = finish(start(tmp_path / "run", "--config.train.batch_size=33"))
    for status, _, errors in ended:
        assert status == 2
        assert re.search(r"batch of 33 images can't be divided over 2 processes; set .*batch_size=32", errors)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("localhost:1", 2, None), "needs all of"),
        ((None, 2, 0), "needs all of"),
        (("localhost:1", 2, 2), "must be from 0 to 1"),
        (("localhost", 2, 0), "must be HOST:PORT"),
        (("localhost:abc", 2, 0), "must be HOST:PORT"),
        (("localhost:65536", 2, 1), "from 1 to 65535"),
        (("nowhere.invalid:1234", 2, 1), "'nowhere.invalid', which is not known"),
    ],
)
def test_half_of_an_address_is_refused(given: tuple, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=reason):
        join(*given)


def test_number_of_processes_in_the_environment_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES is 'two'"):
        join("localhost:1", None, 0)


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "n[1-4]"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n1"}, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_launchers_announce_several_processes(environment: dict[str, str], several: bool) -> None:
    assert _several_are_announced(environment) == several


@pytest.mark.manual
def test_one_that_is_told_to_stop_stops_all_at_one_step(tmp_path: pathlib.Path) -> None:
    workdir = tmp_path / "run"
    processes = start(workdir, "--config.train.num_steps=100000000", "--config.train.checkpoint_every=100000000")
    metrics, deadline = workdir / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text()):
        assert all(process.poll() is None for process in processes), finish(processes)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    ended = finish(processes)
    assert [status for status, _, _ in ended] == [75, 75], [errors for _, _, errors in ended]
    (saved,) = checkpoints.listing(workdir / "checkpoints")
    assert checkpoints.damage(saved) is None and rows(workdir)[-1]["step"] == saved.step
    assert all(f"stopped and saved at step {saved.step} of" in errors for _, _, errors in ended)
    main([f"--workdir={workdir}", *SMALL, f"--config.train.num_steps={saved.step + 20}"])
    assert rows(workdir)[-1]["step"] == saved.step + 20


@pytest.mark.manual
def test_all_say_why_they_diverged_and_end_alike(tmp_path: pathlib.Path) -> None:
    wild = ["--config.train.optimizer=sgd", "--config.train.learning_rate=1e6", "--config.train.num_steps=20"]
    for status, _, errors in finish(start(tmp_path / "run", *wild)):
        assert status == 2, errors
        *_, line = errors.splitlines()
        assert line.startswith("vae-jax: error: training diverged: at step ") and "loss is" in line
