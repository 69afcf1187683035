"""A long run takes no more memory, files, threads or disk in the end than once it has settled.

`VAE_JAX_EPOCHS=2000 pytest -n 0 -m manual tests/reliability/test_long_run.py` takes 2,000 epochs of the digits.
"""

import os
import pathlib
import statistics
import subprocess
import time

import pytest
from runs_that_die import Command

EPOCHS = int(os.environ.get("VAE_JAX_EPOCHS", "200"))
STEPS_PER_EPOCH = 21
# What may be more. TensorStore's metrics, which Orbax asks for at each checkpoint, lose 7 KB a call; with what
# allocators keep that is up to 0.1 MB a checkpoint. Of 2,000 epochs a quarter has 50 checkpoints.
MORE = {"megabytes": 8.0, "files": 0.0, "threads": 1.0, "checkpoints": 1.0, "kilobytes": 100.0}

Level = dict[str, float]


def level(process: int, folder: pathlib.Path) -> Level | None:
    """What a run holds now; None where a file disappeared meanwhile."""
    proc = pathlib.Path("/proc", str(process))
    try:
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        return {
            "megabytes": int(status["VmRSS"].split()[0]) / 1024,
            "files": len(os.listdir(proc / "fd")),
            "threads": int(status["Threads"]),
            "checkpoints": len(os.listdir(folder)),
            "kilobytes": sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1024,
        }
    except (OSError, KeyError):
        return None


def growth(levels: list[Level]) -> list[str]:
    """What is more in the last quarter of a run than before: than in the second one, and memory than in the third.

    Files and threads are counted at their fewest, since a checkpoint opens some for a while; memory by its median,
    since it falls at times, when much that is no longer needed is given back at once.
    """
    quarter = len(levels) // 4
    found = []
    for name, more in MORE.items():
        settled = {"megabytes": statistics.median, "files": min, "threads": min}.get(name, max)
        start = 2 * quarter if name == "megabytes" else quarter
        # While the process ends it holds less than all the time before.
        before, now = (
            settled([each[name] for each in part]) for part in (levels[start : start + quarter], levels[-quarter:-1])
        )
        if now > before + more:
            found.append(f"{name} grew from {before:,.0f} to {now:,.0f}")
    return found


def watch(process: subprocess.Popen, folder: pathlib.Path) -> list[Level]:
    """Looks at a process from outside until it ends."""
    levels = []
    while process.poll() is None:
        if folder.is_dir() and (now := level(process.pid, folder)):
            levels.append(now)
        time.sleep(0.02)
    return levels


STEADY = [
    {"megabytes": 400.0 + step % 7, "files": 30 + step % 2, "threads": 20, "checkpoints": 4, "kilobytes": 300}
    for step in range(20)
]
LEAKS = {"megabytes": 3.0, "files": 1, "threads": 1, "checkpoints": 1, "kilobytes": 20}


@pytest.mark.parametrize(("name", "step"), LEAKS.items())
def test_what_grows_is_seen(name: str, step: float) -> None:
    leaking = [{**each, name: each[name] + number * step} for number, each in enumerate(STEADY)]
    (found,) = growth(leaking)
    assert found.startswith(f"{name} grew from") and growth(STEADY) == []


@pytest.mark.manual
def test_a_long_run_does_not_grow(tmp_path: pathlib.Path) -> None:
    every = [f"--config.train.log_every={STEPS_PER_EPOCH}"]
    command = Command(tmp_path / "run", EPOCHS * STEPS_PER_EPOCH, every=10 * STEPS_PER_EPOCH, more=every)
    (process,) = command.start()
    levels = watch(process, command.workdir / "checkpoints")
    command.finish([process])
    assert len(levels) > 100 and growth(levels) == []
