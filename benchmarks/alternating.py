"""Measures programs in alternation, so that noise of the machine falls on all of them.

Each is a process of its own, which waits without using the processor while another one works.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable

Measurement = dict[str, float]


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def serve(measure: Callable[[], Measurement]) -> None:
    """Measures once for each line on standard input and answers with a line of JSON."""
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


def by_turns(commands: dict[str, list[str]], rounds: int) -> dict[str, list[Measurement]]:
    """Lets programs that `serve` take turns, and prints how each round went.

    Args:
        commands: Arguments of Python by name.
        rounds: How often each is measured, after a first time that doesn't count.

    Returns:
        What each answered, round by round.
    """
    processes = {
        name: subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name, command in commands.items()
    }
    try:
        for process in processes.values():
            _ask(process)  # so that none prepares itself while another is timed
        results: dict[str, list[Measurement]] = {name: [] for name in processes}
        for turn in range(rounds):
            for name, process in processes.items():
                results[name].append(_ask(process))
            print(f"{turn + 1}: " + ", ".join(f"{name} {results[name][-1]['seconds']:.4g} s" for name in results))
    finally:
        for process in processes.values():
            process.kill()
    return results


def _ask(process: subprocess.Popen) -> Measurement:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())
