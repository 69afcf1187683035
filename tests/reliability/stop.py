"""Stops commands of every verb at random moments with SIGINT or SIGTERM: each ends in a line, and the run stays whole.

python tests/reliability/stop.py --times=200 --workdir=/tmp/stop
"""

import argparse
import collections
import functools
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

from runs_that_die import REPOSITORY

from vae_jax.runs import checkpoints
from vae_jax.trained import digest

TINY = ["--config.model.network.hidden=(16,)", "--config.model.latents=3", "--config.train.report=False"]
TRAIN = [*TINY, "--config.train.num_steps=300", "--config.train.checkpoint_every=20", "--config.train.ema_decay=0.9"]
VERBS = {
    "train": TRAIN,
    "evaluate": ["--num_samples=2000"],
    "diagnose": ["--num_images=20"],
    "sample": [],
    "reconstruct": [],
    "encode": ["--output={place}/latents.npz"],
    "interpolate": [],
    "report": [],
    "score": [],
    "export": ["--output={place}/exported"],
    "benchmark": [*TINY, "--output={place}/benchmark.json"],
}
# By status; once all is done, on its way out, Python lets go of signals.
ENDS = {
    signal.SIGINT: {130: "vae-jax: stopped; ", 75: "vae-jax: stopped at ", 0: "", -signal.SIGINT: ""},
    signal.SIGTERM: {75: "vae-jax: stopped", 0: "", -signal.SIGTERM: ""},
}
# Before this the interpreter itself is at its start.
EARLIEST = 0.3


def command(verb: str, place: pathlib.Path, run: pathlib.Path) -> list[str]:
    """The command of a verb for a run in a place."""
    given = [argument.format(place=place) for argument in VERBS[verb]]
    return [sys.executable, str(REPOSITORY / "main.py"), verb, *given, *([f"--workdir={run}"] * (verb != "benchmark"))]


def stopped(words: list[str], number: signal.Signals, seconds: float) -> tuple[int, str]:
    """Exit status, and what is wrong with how it ended."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return process.returncode, "it went on"
    *_, last = ["", *errors.strip().splitlines()]
    fits = process.returncode in ENDS[number] and last.startswith(ENDS[number][process.returncode])
    return process.returncode, "" if fits and "Traceback" not in errors else errors[-2000:] or "no line"


def state(run: pathlib.Path) -> str:
    """Digest of what a run ended with: parameters, optimizer, average."""
    return digest(checkpoints.load(checkpoints.choose(run / "checkpoints", "latest")))


def main() -> None:
    """Exits with status 1 where a command didn't end as it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder for all runs; one that isn't there")
    arguments = parser.parse_args()
    arguments.workdir.mkdir(parents=True)
    rng, ends, wrong = random.Random(arguments.seed), collections.Counter(), 0
    whole, other = arguments.workdir / "whole", arguments.workdir / "stopped"
    to_the_end = functools.partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    to_the_end(command("train", arguments.workdir, whole))
    for turn in range(arguments.times):
        verb = rng.choice(list(VERBS))
        number, seconds = rng.choice(list(ENDS)), rng.uniform(EARLIEST, 6.0)
        run = other if verb == "train" else whole
        # An export makes a new folder.
        shutil.rmtree(arguments.workdir / "exported", ignore_errors=True)
        status, problem = stopped(command(verb, arguments.workdir, run), number, seconds)
        ends[verb, status] += 1
        if problem:
            wrong += 1
            print(f"{turn}: {verb}, {number.name} after {seconds:.2f} s: {status}, {problem}", flush=True)
    to_the_end(command("train", arguments.workdir, other))
    if state(other) != state(whole):
        wrong += 1
        print("the run that was stopped ended otherwise than the one that wasn't")
    print("; ".join(f"{verb} {status}: {count}" for (verb, status), count in sorted(ends.items())))
    print(f"{arguments.times} commands were stopped; {wrong} times something went wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
