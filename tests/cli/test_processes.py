"""Two processes with two devices each are one run: the numbers of a single process, one writer, and a way on."""

import dataclasses
import pathlib
import re
import signal

import numpy as np
import pytest
from runs_that_die import SECONDS_TO_LIVE, Command
from tiny_runs import rows

from vae_jax.errors import UserError
from vae_jax.processes import _several_are_announced, join
from vae_jax.runs import checkpoints

ENDLESS = 100_000_000


def assert_close(ours: list[dict], theirs: list[dict]) -> None:
    assert [(row["step"], row["split"]) for row in ours] == [(row["step"], row["split"]) for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for name in ("elbo", "reconstruction", "kl"):
            np.testing.assert_allclose(one[name], other[name], rtol=2e-4, err_msg=f"{name} at step {one['step']}")


@pytest.mark.long
def test_two_processes_are_one_run_that_a_single_one_continues(tmp_path: pathlib.Path) -> None:
    alone = Command(tmp_path / "alone", 60, every=20)
    together = Command(tmp_path / "together", 40, every=20, devices=2, processes=2, more=["--config.train.report=True"])
    started = together.start()
    alone.finish()
    together.finish(started)
    assert "everything is in" in together.said(0) and "nats" in together.said(0)
    assert "everything is in" not in together.said(1) and "nats" not in together.said(1)
    # The first of two processes writes it, without the other's help.
    assert "</html>" in (together.workdir / "report.html").read_text()
    assert_close(rows(together.workdir), [row for row in rows(alone.workdir) if row["step"] <= 40])
    # One device of one process goes on where four of two processes were.
    dataclasses.replace(alone, workdir=together.workdir).finish()
    assert_close(rows(together.workdir), rows(alone.workdir))


@pytest.mark.manual
@pytest.mark.parametrize(("index", "number"), [(0, signal.SIGKILL), (1, signal.SIGTERM)])
def test_one_process_that_ends_ends_all_and_leaves_a_whole_checkpoint(
    index: int, number: signal.Signals, tmp_path: pathlib.Path
) -> None:
    """Where the first one is killed the others notice at once; where one is told to stop, all stop at one step."""
    command = Command(tmp_path / "run", ENDLESS, every=20, processes=2, devices=2)
    processes = command.start()
    command.wait_for(processes, lambda: command.newest() >= 40)
    processes[index].send_signal(number)
    statuses = [process.wait(timeout=SECONDS_TO_LIVE) for process in processes]
    if number == signal.SIGTERM:
        assert statuses == [75, 75]
        said = f"stopped and saved at step {command.newest()} of"
        assert (
            all(said in command.said(each) for each in (0, 1)) and rows(command.workdir)[-1]["step"] == command.newest()
        )
    assert all(statuses)
    assert all(checkpoints.damage(each) is None for each in checkpoints.listing(command.workdir / "checkpoints"))
    more = command.newest() + 5
    dataclasses.replace(command, num_steps=more, processes=1).finish()
    assert rows(command.workdir)[-1]["step"] == more


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--config.train.batch_size=33"], r"batch of 33 images can't be divided over 2 processes; .*batch_size=32"),
        pytest.param(
            ["--config.train.optimizer=sgd", "--config.train.learning_rate=1e6", "--config.train.num_steps=20"],
            r"vae-jax: error: training diverged: at step .*loss is",
            marks=pytest.mark.manual,
        ),
    ],
)
def test_a_process_says_why_the_run_ends(more: list[str], words: str, tmp_path: pathlib.Path) -> None:
    command = Command(tmp_path / "run", processes=2, devices=2, more=more)
    statuses = [process.wait(timeout=SECONDS_TO_LIVE) for process in command.start()]
    # On a busy machine the other one may be ended by the runtime, which misses the first, before it has spoken.
    assert statuses[0] == 2 and all(statuses)
    assert all(re.search(words, command.said(index)) for index, status in enumerate(statuses) if status == 2)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        *((("localhost:1", 2, None), "needs all of"), ((None, 2, 0), "needs all of")),
        *((("localhost:1", 2, 2), "must be from 0 to 1"), (("localhost:abc", 2, 0), "must be HOST:PORT")),
        *((("localhost", 2, 0), "must be HOST:PORT"), (("localhost:65536", 2, 1), "from 1 to 65535")),
        (("nowhere.invalid:1234", 2, 1), "'nowhere.invalid', which is not known"),
        (("localhost:1", None, 0), "JAX_NUM_PROCESSES is 'two'"),
    ],
)
def test_half_of_an_address_is_refused(given: tuple, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    if "two" in reason:
        monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    with pytest.raises(UserError, match=reason):
        join(*given)


SLURM = {"SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "n[1-4]"}


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        *(({}, False), (SLURM, True), ({**SLURM, "SLURM_NTASKS": "1"}, False)),
        *(({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False), ({"TPU_WORKER_HOSTNAMES": "localhost"}, False)),
        *(({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, True), ({"TPU_WORKER_HOSTNAMES": "a,b"}, True)),
    ],
)
def test_launchers_announce_several_processes(environment: dict[str, str], several: bool) -> None:
    assert _several_are_announced(environment) == several
