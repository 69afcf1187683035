"""Real training processes that are killed, and what a run that was killed must have in common with one that wasn't."""

import contextlib
import dataclasses
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tiny_runs import bits, rows

from vae_jax.files import is_leftover
from vae_jax.runs import checkpoints

REPOSITORY = pathlib.Path(__file__).parents[2]
SECONDS_TO_LIVE = 300.0
# A process that lost another one of its run ends within two minutes; nobody waits that long here.
_SECONDS_FOR_OTHERS = 5.0


@dataclasses.dataclass(frozen=True)
class Command:
    """A training command that can be given again and again.

    Attributes:
        workdir: Folder of the run.
        num_steps: Steps in all.
        every: Steps between checkpoints.
        devices: Simulated devices of each process.
        processes: How many make up the run.
        more: Further arguments.
        environment: Variables that differ from those of this process.
    """

    workdir: pathlib.Path
    num_steps: int = 60
    every: int = 10
    devices: int = 1
    processes: int = 1
    more: Sequence[str] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def start(self) -> list[subprocess.Popen]:
        """Starts it, in processes that find each other by a free port of this machine."""
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            address = f"--coordinator_address=localhost:{probe.getsockname()[1]}"
        arguments = [
            *(f"--workdir={self.workdir}", "--config.model.network.hidden=(16,)", "--config.model.latents=3"),
            *(f"--config.train.num_steps={self.num_steps}", f"--config.train.checkpoint_every={self.every}"),
            *("--config.train.log_every=3", "--config.train.ema_decay=0.9", "--config.train.report=False"),
            *self.more,
        ]
        several = [
            [address, f"--num_processes={self.processes}", f"--process_id={index}"] if self.processes > 1 else []
            for index in range(self.processes)
        ]
        return [self._start(index, [*arguments, *own]) for index, own in enumerate(several)]

    def _start(self, index: int, arguments: list[str]) -> subprocess.Popen:
        flags = f"--xla_force_host_platform_device_count={self.devices}" if self.devices > 1 else ""
        command = [sys.executable, str(REPOSITORY / "main.py"), *arguments]
        # A file instead of a pipe, which would have to be emptied meanwhile.
        with self._log(index).open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**os.environ, "XLA_FLAGS": flags, **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _log(self, index: int) -> pathlib.Path:
        return self.workdir.with_name(f"{self.workdir.name}.{index}.log")

    def said(self, index: int = 0) -> str:
        """What one of its processes said, all starts one after the other."""
        return self._log(index).read_text(errors="replace")

    def finish(self, processes: list[subprocess.Popen] | None = None) -> None:
        """Waits until all have ended well; starts them, where they aren't given."""
        processes = self.start() if processes is None else processes
        statuses = [process.wait(timeout=SECONDS_TO_LIVE) for process in processes]
        assert not any(statuses), f"{statuses}\n{self.said()[-3000:]}"

    def wait_for(self, processes: list[subprocess.Popen], what: Callable[[], object]) -> None:
        """Waits until something is so, while they live."""
        deadline = time.monotonic() + SECONDS_TO_LIVE
        while not what():
            assert all(process.poll() is None for process in processes), self.said()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def has_rows(self) -> bool:
        """Whether there is a row of metrics."""
        path = self.workdir / "metrics.jsonl"
        return path.is_file() and path.stat().st_size > 0

    def newest(self) -> int:
        """Step of the newest checkpoint; 0 if there is none."""
        return max((int(path.name) for path in (self.workdir / "checkpoints").glob("[0-9]*")), default=0)


# What to wait for, each a pattern below the folder of the run, before the blow falls.
PLACES = (
    "checkpoints/.unfinished-*",
    "checkpoints/.unfinished-*/state*",
    "checkpoints/.unfinished-*/state",
    "checkpoints/.unfinished-*/checkpoint.json",
    "checkpoints/.unfinished-removed-*",
    "checkpoints/[0-9]*",
    "images/.*.unfinished.png",
    "images/*.png",
    "*.json",
    "metrics.jsonl",
)


def kill_once(command: Command, rng: random.Random) -> bool:
    """Starts the command and kills one or all of its processes at a random moment; False where it ended before."""
    place, times, delay = rng.choice([*PLACES, None]), rng.randint(1, 5), rng.uniform(0.0, 0.03)
    seen = _matches(command, place)
    processes = command.start()
    deadline = time.monotonic() + (rng.uniform(0.0, 8.0) if place is None else SECONDS_TO_LIVE)
    while all(process.poll() is None for process in processes) and time.monotonic() < deadline and times:
        # The first such moment or a later one: else most blows would fall before the first checkpoint.
        if fresh := _matches(command, place) - seen:
            seen, times = seen | fresh, times - 1
        time.sleep(0.001)
    time.sleep(delay)
    assert not any(process.poll() for process in processes), command.said()[-3000:]
    if all(process.poll() == 0 for process in processes):
        return False
    for process in rng.choice([processes, *([process] for process in processes)]):
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + _SECONDS_FOR_OTHERS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        process.kill()
        process.wait()
    return any(process.returncode for process in processes)


def kill_to_the_end(command: Command, most: int, rng: random.Random) -> int:
    """Kills a run over and over, lets it come to its end then, and gives the number of kills."""
    kills = 0
    while kills < most and kill_once(command, rng):
        kills += 1
    command.finish()
    return kills


def _matches(command: Command, place: str | None) -> set[tuple[pathlib.Path, int]]:
    """What is there of a place, each with the time of its last change."""
    found = set()
    for path in command.workdir.glob(place) if place else ():
        with contextlib.suppress(OSError):
            found.add((path, path.stat().st_mtime_ns))
    return found


def differences(killed: pathlib.Path, whole: pathlib.Path) -> list[str]:
    """In what two finished runs differ; times, rates and the record of starts don't count."""
    found = []
    ours, theirs = (checkpoints.listing(run / "checkpoints") for run in (killed, whole))
    if [(c.step, c.score) for c in ours] != [(c.step, c.score) for c in theirs]:
        found.append("checkpoints")
    for one, other in zip(ours, theirs, strict=False):
        if one.step == other.step and bits(killed, str(one.step)) != bits(whole, str(one.step)):
            found.append(f"arrays of checkpoint {one.step}")
    if repr(rows(killed)) != repr(rows(whole)):
        found.append("metrics.jsonl")
    # A folder that was killed in may hold what the next start overwrites.
    names = [sorted(path.name for path in run.iterdir() if not is_leftover(path)) for run in (killed, whole)]
    pictures = [sorted(path.name for path in (run / "images").iterdir()) for run in (killed, whole)]
    if names[0] != names[1] or pictures[0] != pictures[1]:
        found.append("names of files")
    for name in ("config.json", "images.json", *(f"images/{picture}" for picture in pictures[1])):
        if (killed / name).is_file() and (killed / name).read_bytes() != (whole / name).read_bytes():
            found.append(name)
    return found
