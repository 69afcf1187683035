"""A long run takes no more memory, files, threads or disk in the end than once it has settled.

    python tests/reliability/long_run.py --epochs=2000 --workdir=/tmp/long

Trains a small network on the digits with a checkpoint every 10 epochs, looks at the process from outside all the while,
and prints a row per twentieth of the run.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence

from runs_that_die import Command

_STEPS_PER_EPOCH = 21
_EPOCHS_PER_CHECKPOINT = 10
_WINDOWS = 20
# TensorStore's metrics, which Orbax asks for at each checkpoint, lose 7 KB a call; with what allocators keep that is up
# to 0.1 MB a checkpoint. Of 2,000 epochs a quarter has 50 checkpoints.
_MORE_MEGABYTES = 8.0
_SECONDS_BETWEEN = 0.02


@dataclasses.dataclass(frozen=True)
class Level:
    """What a run held, at one time or over a window of its steps.

    Attributes:
        step: The last step that metrics told of.
        megabytes: Resident memory.
        files: Open files.
        threads: Threads.
        entries: Names in `checkpoints/`.
        kilobytes: Of all files there.
    """

    step: int
    megabytes: float
    files: int
    threads: int
    entries: int
    kilobytes: int


def settled(window: Sequence[Level]) -> Level:
    """The level of a window: the lowest number of files and threads, since a checkpoint opens some for a while."""
    return Level(
        window[-1].step,
        statistics.median(level.megabytes for level in window),
        min(level.files for level in window),
        min(level.threads for level in window),
        max(level.entries for level in window),
        max(level.kilobytes for level in window),
    )


def growth(levels: Sequence[Level]) -> list[str]:
    """What is more in the last quarter of a run than before: than in the second one, and memory than in the third.

    Memory falls at times, when much that is no longer needed is given back at once: quarters beside each other are less
    likely to be told apart by that.

    Args:
        levels: Of its windows, in order.
    """
    quarter = len(levels) // 4
    last = levels[-quarter:]
    second, third = levels[quarter : 2 * quarter], levels[-2 * quarter : -quarter]
    compared = {
        "megabytes": (third, _MORE_MEGABYTES),
        **{"files": (second, 0), "threads": (second, 1), "entries": (second, 1), "kilobytes": (second, 100)},
    }
    found = []
    for name, (before, more) in compared.items():
        # Medians: while the process ends it holds less than all the time before.
        then, now = (statistics.median(getattr(level, name) for level in part) for part in (before, last))
        if now > then + more:
            found.append(f"{name} grew from {then:,.0f} to {now:,.0f}")
    return found


def watch(command: Command, num_windows: int) -> list[Level]:
    """Runs a command to its end and gives the level of each window of its steps."""
    (process,) = command.start()
    windows: list[list[Level]] = [[] for _ in range(num_windows)]
    tail = Tail(command.workdir / "metrics.jsonl")
    while process.poll() is None:
        step = tail.last_step()
        level = _level(process.pid, command.workdir / "checkpoints", step) if step else None
        if level is not None:
            windows[min(num_windows - 1, step * num_windows // command.num_steps)].append(level)
        time.sleep(_SECONDS_BETWEEN)
    if process.returncode:
        raise SystemExit(f"training ended with {process.returncode}:\n{command.log.read_text()[-3000:]}")
    return [settled(window) for window in windows if window]


class Tail:
    """The newest step in a metrics file that is still written to.

    Args:
        path: The file; it needn't be there yet.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path, self._read, self._step = path, 0, 0

    def last_step(self) -> int:
        """The step of its last whole line; 0 before there is one."""
        if not self._path.exists():
            return 0
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, _, _ = file.read().rpartition(b"\n")
        if whole:
            self._read += len(whole) + 1
            self._step = json.loads(whole.splitlines()[-1])["step"]
        return self._step


def _level(process: int, folder: pathlib.Path, step: int) -> Level | None:
    """What is held now; None where a file disappeared meanwhile."""
    proc = pathlib.Path("/proc", str(process))
    try:
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        sizes = [path.lstat().st_size for path in folder.rglob("*") if path.is_file()]
        return Level(
            step,
            int(status["VmRSS"].split()[0]) / 1024,
            len(os.listdir(proc / "fd")),
            int(status["Threads"]),
            len(os.listdir(folder)),
            sum(sizes) // 1024,
        )
    except (OSError, KeyError):
        return None


def shown(levels: Sequence[Level]) -> str:
    """A table of them."""
    lines = [f"{'step':>8} {'RSS, MB':>8} {'files':>6} {'threads':>8} {'checkpoints':>12} {'KB there':>9}"]
    lines += [
        f"{level.step:>8} {level.megabytes:>8.1f} {level.files:>6} {level.threads:>8} {level.entries:>12} "
        f"{level.kilobytes:>9}"
        for level in levels
    ]
    return "\n".join(lines)


def long_command(workdir: pathlib.Path, epochs: int) -> Command:
    """A run of so many epochs of the digits."""
    return Command(
        workdir,
        num_steps=epochs * _STEPS_PER_EPOCH,
        every=_EPOCHS_PER_CHECKPOINT * _STEPS_PER_EPOCH,
        more=[f"--config.train.log_every={_STEPS_PER_EPOCH}"],
    )


def main() -> None:
    """Exits with status 1 where anything grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder for the run; one that isn't there")
    arguments = parser.parse_args()
    if arguments.workdir.exists():
        parser.error(f"{arguments.workdir} is already there")
    began = time.monotonic()
    levels = watch(long_command((arguments.workdir / "run").absolute(), arguments.epochs), _WINDOWS)
    print(shown(levels))
    found = growth(levels)
    print(f"{arguments.epochs} epochs in {time.monotonic() - began:.0f} s: {'; '.join(found) or 'nothing grew'}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
