"""Kills small runs over and over until they are through, and compares each with the run that was never killed.

python tests/reliability/kill.py --kills=50 --workdir=/tmp/kill
python tests/reliability/kill.py --kills=50 --of-one-run=50 --steps=3000 --workdir=/tmp/kill_one
python tests/reliability/kill.py --kills=15 --devices=8 --workdir=/tmp/kill8
python tests/reliability/kill.py --kills=15 --devices=2 --processes=2 --workdir=/tmp/kill2x2
"""

import argparse
import collections
import dataclasses
import pathlib
import random
import sys
import time

from runs_that_die import Command, differences, finish, kill_to_the_end


def main() -> None:
    """Exits with status 1 where any run differs from the one that was never killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--devices", type=int, default=1, help="simulated devices of each process")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--of-one-run", type=int, default=12, help="kills after which a run may come to its end")
    parser.add_argument("--steps", type=int, default=60, help="of each run; a checkpoint every 10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="folder for all runs; one that isn't there")
    arguments = parser.parse_args()
    if arguments.workdir.exists():
        parser.error(f"{arguments.workdir} is already there")
    rng = random.Random(arguments.seed)
    cache = {"XDG_CACHE_HOME": str((arguments.workdir / "cache").absolute())}
    whole = Command(
        (arguments.workdir / "whole").absolute(),
        num_steps=arguments.steps,
        devices=arguments.devices,
        processes=arguments.processes,
        environment=cache,
    )
    finish(whole.start(), whole.log)
    began, kills, runs, different = time.monotonic(), [], 0, 0
    while len(kills) < arguments.kills:
        command = dataclasses.replace(whole, workdir=whole.workdir.with_name(f"killed{runs}"))
        for kill in kill_to_the_end(command, min(arguments.of_one_run, arguments.kills - len(kills)), rng):
            kills.append(kill)
            half = ", half a checkpoint is left" if kill.inside else ""
            struck = f", processes {kill.struck}" if arguments.processes > 1 else ""
            print(f"{len(kills):>3} run {runs}, checkpoint {kill.step}, {kill.place}{struck}{half}", flush=True)
        found = differences(command.workdir, whole.workdir)
        print(f"run {runs}: {'; '.join(found) or 'no difference'}", flush=True)
        runs, different = runs + 1, different + bool(found)
    places = collections.Counter(kill.place for kill in kills)
    early, inside = sum(kill.step == 0 for kill in kills), sum(kill.inside for kill in kills)
    print(
        f"{len(kills)} kills of {runs} runs in {time.monotonic() - began:.0f} s: {early} before the first checkpoint,"
    )
    print(f"{inside} left a checkpoint half written or half removed. {different} of {runs} runs differ.")
    print(", ".join(f"{count} {place}" for place, count in places.most_common()))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
