"""Real training processes that are killed, and what a run that was killed must have in common with one that wasn't."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from vae_jax.files import is_leftover
from vae_jax.runs import checkpoints

REPOSITORY = pathlib.Path(__file__).parents[2]
SECONDS_TO_LIVE = 300.0
# Between looks at the folder; a checkpoint of the small model takes some 100 ms to write.
_GLANCE = 0.001
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
        environment: Variables that differ from those of this process; None takes one away.
    """

    workdir: pathlib.Path
    num_steps: int = 60
    every: int = 10
    devices: int = 1
    processes: int = 1
    more: Sequence[str] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)

    def start(self) -> list[subprocess.Popen]:
        """Starts it, in processes that find each other by a free port."""
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            address = f"--coordinator_address=localhost:{probe.getsockname()[1]}"
        arguments = [
            *(f"--workdir={self.workdir}", "--config.model.network.hidden=(16,)", "--config.model.latents=3"),
            *(f"--config.train.num_steps={self.num_steps}", f"--config.train.checkpoint_every={self.every}"),
            *("--config.train.log_every=3", "--config.train.ema_decay=0.9", "--config.train.report=False"),
            *self.more,
        ]
        flags = f"--xla_force_host_platform_device_count={self.devices}" if self.devices > 1 else ""
        inherited = dict(os.environ)
        if "JAX_COMPILATION_CACHE_DIR" in inherited:
            # As users have it, in their own cache's folder; what one test's processes compile serves those of others.
            inherited["XDG_CACHE_HOME"] = inherited.pop("JAX_COMPILATION_CACHE_DIR")
        environment = {**inherited, "XLA_FLAGS": flags, **self.environment}
        self.workdir.parent.mkdir(parents=True, exist_ok=True)
        started = []
        for index in range(self.processes):
            own = [address, f"--num_processes={self.processes}", f"--process_id={index}"] if self.processes > 1 else []
            command = [sys.executable, str(REPOSITORY / "main.py"), *arguments, *own]
            # A file instead of a pipe, which would have to be emptied meanwhile.
            with self.log.open("ab") as log:
                started.append(
                    subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT)
                )
        return started

    @property
    def log(self) -> pathlib.Path:
        """What its processes said, all starts one after the other."""
        return self.workdir.with_name(f"{self.workdir.name}.log")


def finish(processes: list[subprocess.Popen], log: pathlib.Path) -> None:
    """Waits until all have ended well."""
    statuses = [process.wait(timeout=SECONDS_TO_LIVE) for process in processes]
    assert not any(statuses), f"{statuses}\n{log.read_text(errors='replace')[-3000:]}"


# What to wait for, each a pattern below the folder of the run, before the blow falls.
PLACES = {
    "a checkpoint is begun": "checkpoints/.unfinished-*",
    "Orbax writes": "checkpoints/.unfinished-*/state*",
    "the state is written": "checkpoints/.unfinished-*/state",
    "the record is written": "checkpoints/.unfinished-*/checkpoint.json",
    "a checkpoint is removed": "checkpoints/.unfinished-removed-*",
    "a picture is written": "images/.*.unfinished.png",
    "a picture is there": "images/*.png",
    "the config is there": "*.json",
    "a row is there": "metrics.jsonl",
}


@dataclasses.dataclass(frozen=True)
class Kill:
    """One blow.

    Attributes:
        place: What it waited for: one of `PLACES`, or a number of seconds.
        step: Of the newest checkpoint at that time, 0 where there was none.
        inside: Whether it left a checkpoint half written or half removed.
        struck: Which of the processes.
    """

    place: str
    step: int
    inside: bool
    struck: tuple[int, ...]


def kill_once(command: Command, rng: random.Random) -> Kill | None:
    """Starts the command and kills it at a random moment; None where it came to its end before that."""
    place = rng.choice([*PLACES, "a random moment", "a new checkpoint"])
    delay = rng.uniform(0.0, 0.03)
    # Of the first such moments, or later ones: else most blows would fall before the first checkpoint.
    times = rng.randint(1, 5)
    before = _newest(command)
    left = _matches(command, "a checkpoint is begun")
    seen = _matches(command, place)
    processes = command.start()
    deadline = time.monotonic() + SECONDS_TO_LIVE
    if place == "a random moment":
        deadline = time.monotonic() + rng.uniform(0.0, 8.0)
    while all(process.poll() is None for process in processes) and time.monotonic() < deadline:
        if place == "a new checkpoint":
            if _newest(command) > before + (times - 1) * command.every:
                delay = rng.uniform(0.0, 0.3)
                break
        elif fresh := _matches(command, place) - seen:
            seen |= fresh
            times -= 1
            if not times:
                break
        time.sleep(_GLANCE)
    time.sleep(delay)
    statuses = [process.poll() for process in processes]
    if any(statuses):
        raise AssertionError(f"ended by itself with {statuses}:\n{command.log.read_text(errors='replace')[-3000:]}")
    if all(status == 0 for status in statuses):
        return None
    everyone = tuple(range(len(processes)))
    struck = rng.choice([everyone, *((index,) for index in everyone)])
    for index in struck:
        processes[index].send_signal(signal.SIGKILL)
    _end(processes)
    inside = bool(_matches(command, "a checkpoint is begun") - left)
    finished = all(process.returncode == 0 for process in processes)
    return None if finished else Kill(place, _newest(command), inside, struck)


def kill_to_the_end(command: Command, most: int, rng: random.Random) -> Iterator[Kill]:
    """Kills a run over and over, at most so many times, and lets it come to its end then."""
    for _ in range(most):
        kill = kill_once(command, rng)
        if kill is None:
            return
        yield kill
    finish(command.start(), command.log)


def differences(killed: pathlib.Path, whole: pathlib.Path) -> list[str]:
    """In what two finished runs differ; times, rates and the record of starts don't count."""
    found = []
    ours, theirs = (checkpoints.listing(run / "checkpoints") for run in (killed, whole))
    if [(c.step, c.score) for c in ours] != [(c.step, c.score) for c in theirs]:
        found.append(f"checkpoints {[(c.step, c.score) for c in ours]} and {[(c.step, c.score) for c in theirs]}")
    for one, other in zip(ours, theirs, strict=False):
        found += [f"checkpoint {one.step}, {name}" for name in _different_arrays(one, other)]
    if json.dumps(rows(killed)) != json.dumps(rows(whole)):
        found.append("metrics.jsonl")
    for name in ("config.json", "images.json"):
        if (killed / name).read_bytes() != (whole / name).read_bytes():
            found.append(name)
    pictures = sorted(path.name for path in (whole / "images").iterdir())
    if sorted(path.name for path in (killed / "images").iterdir()) != pictures:
        found.append("names in images/")
    else:
        found += [
            f"images/{name}"
            for name in pictures
            if (killed / "images" / name).read_bytes() != (whole / "images" / name).read_bytes()
        ]
    # A folder that was killed in may hold what the next start overwrites.
    names = [sorted(path.name for path in run.iterdir() if not is_leftover(path)) for run in (killed, whole)]
    if names[0] != names[1]:
        found.append(f"files {names[0]} and {names[1]}")
    return found


def _different_arrays(ours: checkpoints.Checkpoint, theirs: checkpoints.Checkpoint) -> list[str]:
    one, other = (jax.tree_util.tree_leaves_with_path(checkpoints.load(each)) for each in (ours, theirs))
    if [path for path, _ in one] != [path for path, _ in other]:
        return ["names of arrays"]
    return [
        jax.tree_util.keystr(path)
        for (path, leaf), (_, expected) in zip(one, other, strict=True)
        if np.asarray(leaf).tobytes() != np.asarray(expected).tobytes()
    ]


def rows(run: pathlib.Path) -> list[dict]:
    """The rows of a run's metrics, without what is a matter of time."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name != "images_per_second"} for row in found]


def _end(processes: list[subprocess.Popen]) -> None:
    """Waits for what is left of a run, and ends that too after a while."""
    deadline = time.monotonic() + _SECONDS_FOR_OTHERS
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _matches(command: Command, place: str) -> set[tuple[pathlib.Path, int]]:
    """What is there of a place, each with the time of its last change."""
    found = set()
    for path in command.workdir.glob(PLACES[place]) if place in PLACES else ():
        with contextlib.suppress(OSError):
            found.add((path, path.stat().st_mtime_ns))
    return found


def _newest(command: Command) -> int:
    folder = command.workdir / "checkpoints"
    return max((int(path.name) for path in folder.glob("[0-9]*")), default=0)
