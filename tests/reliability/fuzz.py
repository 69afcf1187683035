"""Damaged and hostile files by the thousand: each ends in success or in one line that a user can act on.

    python tests/reliability/fuzz.py --cases=100000 --seed=0
    python tests/reliability/fuzz.py --only=npz,folder --cases=1000
    python tests/reliability/fuzz.py --only=npz --seed=0 --case=17     # one again, with its traceback

What a case is follows from (seed, kind, number). It fails if anything but `UserError` is raised, the error has more
than one line, it takes over ten seconds of the processor's time, a minute on the clock or a gigabyte, prints what a
terminal obeys, or writes outside its own folder.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import logging
import os
import pathlib
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np

SECONDS = 10.0
# On a machine that others use too, time on the clock says less; but what waits for ever takes none of the processor's.
SECONDS_OF_CLOCK = 60.0
GROWTH = 2**30
# Shares of all cases: those that cost a millisecond are many.
SHARES = {
    "npz": 0.34,
    "folder": 0.18,
    "config": 0.33,
    "metrics": 0.08,
    "latents": 0.05,
    "checkpoint": 0.008,
    "export": 0.01,
    "report": 0.002,
}

Case = Callable[[np.random.Generator, pathlib.Path], None]


@dataclasses.dataclass(frozen=True)
class Failure:
    """A case that went wrong.

    Attributes:
        kind: One of `SHARES`.
        number: Of the case.
        what: What happened.
        trace: Where.
    """

    kind: str
    number: int
    what: str
    trace: str


class TooLong(BaseException):
    """Raised by the clock; no `except Exception` may swallow it."""


def counts(cases: int, only: Sequence[str]) -> dict[str, int]:
    """How many cases of each kind."""
    total = sum(SHARES[kind] for kind in only)
    return {kind: max(1, round(cases * SHARES[kind] / total)) for kind in only}


class Fuzzer:
    """Runs cases.

    Args:
        place: An empty folder. `work/` in it belongs to the case that runs; all else there has to stay as it is.
        seed: What cases follow from.
    """

    def __init__(self, place: pathlib.Path, seed: int) -> None:
        # Here, since a child process that only asks for help need not wait for JAX.
        import fuzz_cases

        self._seed, self._work, self._sentinel = seed, place / "work", place / "others"
        self._sentinel.mkdir()
        for name in ("notes.txt", "deep/file.json", ".hidden"):
            path = self._sentinel / name
            path.parent.mkdir(exist_ok=True)
            path.write_text("as it was")
        # What is kept of decoded pictures belongs to a case, and compiled programs to nobody.
        os.environ |= {"XDG_CACHE_HOME": str(self._work / "cache"), "JAX_COMPILATION_CACHE_DIR": ""}
        self._kinds: dict[str, Case] = fuzz_cases.kinds(place / "base")
        self._before = _listing(place, self._work)
        self._place = place
        self._peak = _status("VmHWM")
        self.refused = 0

    def case(self, kind: str, number: int) -> Failure | None:
        """Runs one; None where it ends as it should."""
        rng = np.random.default_rng([self._seed, sorted(SHARES).index(kind), number])
        self._work.mkdir()
        out, what, trace = io.StringIO(), "", ""
        try:
            with _limited(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), _logged(out):
                what = self._outcome(lambda: self._kinds[kind](rng, self._work))
        except (Exception, TooLong) as error:
            what, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        finally:
            _remove(self._work)
        what = what or _printed(out.getvalue()) or self._elsewhere() or self._memory()
        return Failure(kind, number, what, trace) if what else None

    def _outcome(self, run: Callable[[], None]) -> str:
        """What is wrong with how a case ends; nothing, where it is right."""
        from vae_jax.errors import UserError

        try:
            run()
        except UserError as error:
            self.refused += 1
            text = str(error)
            if "\n" in text or len(text) < 20:
                return f"no line to act on: {text!r}"
            # Pillow has a MemoryError for streams that zlib can't follow, too.
            if "unable to allocate" in text.lower():
                return f"memory was asked for first: {text}"
            return _printed(text)
        return ""

    def _elsewhere(self) -> str:
        now = _listing(self._place, self._work)
        if now == self._before:
            return ""
        changed = sorted(str(name) for name, _ in set(now.items()) ^ set(self._before.items()))
        self._before = now
        return f"written outside: {changed[:5]}"

    def _memory(self) -> str:
        peak = _status("VmHWM")
        if peak - self._peak <= GROWTH:
            return ""
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        self._peak = _status("VmHWM")
        return f"{peak / 2**20:.0f} MB of memory taken"


def _printed(text: str) -> str:
    """Complains of what a terminal would obey."""
    for place, letter in enumerate(text):
        if letter not in "\n\r\t" and unicodedata.category(letter) in ("Cc", "Cf", "Cs"):
            return f"printed {letter!r} after {text[max(0, place - 200) : place]!r}"
    return ""


@contextlib.contextmanager
def _logged(out: io.StringIO) -> Iterator[None]:
    """Takes warnings that are logged down with what is printed."""
    logger, handler = logging.getLogger(), logging.StreamHandler(out)
    before, logger.handlers = logger.handlers, [handler]
    try:
        yield
    finally:
        logger.handlers = before


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Two clocks, and a limit of the memory that can be asked for."""

    def ring(number: int, _: object) -> None:
        raise TooLong(f"more than {SECONDS if number == signal.SIGPROF else SECONDS_OF_CLOCK} s")

    clocks = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, SECONDS_OF_CLOCK)}
    handlers = {number: signal.signal(number, ring) for number in clocks}
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + 2 * GROWTH, hard))
    for timer, seconds in clocks.values():
        signal.setitimer(timer, seconds)
    try:
        with warnings.catch_warnings():
            # A warning is noise on a user's terminal that nobody meant for them.
            warnings.simplefilter("error")
            yield
    finally:
        for number, (timer, _) in clocks.items():
            signal.setitimer(timer, 0)
            signal.signal(number, handlers[number])
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _status(name: str) -> int:
    text = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", text)[1]) * 1024  # pyright: ignore[reportOptionalSubscript]


def _listing(place: pathlib.Path, work: pathlib.Path) -> dict[str, tuple[int, int]]:
    found = {}
    for parent, folders, files in os.walk(place):
        folders[:] = [name for name in folders if os.path.join(parent, name) != str(work)]
        for name in files:
            status = os.lstat(os.path.join(parent, name))
            found[os.path.join(parent, name)] = status.st_size, status.st_mtime_ns
    return found


def _remove(folder: pathlib.Path) -> None:
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(SHARES))
    parser.add_argument("--case", type=int, help="this one alone, of the one kind that --only names")
    parser.add_argument("--failures", default="fuzz_failures.jsonl", help="where failing cases are added")
    given = parser.parse_args()
    only = given.only.split(",")
    # As the command line has it: reads that fail late say nothing.
    sys.unraisablehook = lambda _: None
    with tempfile.TemporaryDirectory() as place:
        fuzzer = Fuzzer(pathlib.Path(place), given.seed)
        if given.case is not None:
            failure = fuzzer.case(only[0], given.case)
            print(f"{failure.trace}\n{failure.what}" if failure else "it ends as it should")
            sys.exit(failure is not None)
        failed = 0
        for kind, count in counts(given.cases, only).items():
            began, of_kind, before = time.perf_counter(), 0, fuzzer.refused
            for number in range(count):
                failure = fuzzer.case(kind, number)
                if failure is not None:
                    of_kind += 1
                    with open(given.failures, "a") as file:
                        file.write(json.dumps({"seed": given.seed, **dataclasses.asdict(failure)}) + "\n")
                    print(f"{kind} {number}: {failure.what[:300]}", flush=True)
            failed += of_kind
            refused, seconds = fuzzer.refused - before, time.perf_counter() - began
            print(f"{kind:<10} {count:>6} cases, {refused} refused, {of_kind} failed, {seconds:.0f} s", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    main()
