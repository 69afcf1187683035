"""Damaged and hostile files by the hundred: each ends in success or in one line that a user can act on.

    VAE_JAX_CASES=100000 VAE_JAX_SEED=7 pytest -n 0 -m long tests/reliability/test_fuzz.py -k every_case

What a case is follows from (seed, kind, number). It fails if anything but `UserError` is raised, the error has more
than one line, it takes over half a minute or two gigabytes, prints what a terminal obeys, or writes outside its own
folder.
"""

import contextlib
import io
import logging
import os
import pathlib
import re
import resource
import shutil
import signal
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator

import fuzz_cases
import numpy as np
import pytest
from on_disk import contents

from vae_jax.errors import UserError

pytestmark = pytest.mark.long

SEED = int(os.environ.get("VAE_JAX_SEED", "0"))
CASES = {**{"npz": 90, "folder": 60, "config": 90, "metrics": 30}, **{"checkpoint": 5, "export": 6}}
TIMES = int(os.environ.get("VAE_JAX_CASES", "0")) / sum(CASES.values())
SECONDS = 30.0
MEMORY = 2**31

Case = Callable[[np.random.Generator, pathlib.Path], None]


class TooLong(BaseException):
    """Raised by the clock; no `except Exception` may swallow it."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """A clock, and a limit of the memory that can be asked for; a warning is noise that nobody meant for a user."""

    def ring(*_: object) -> None:
        raise TooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    status = pathlib.Path("/proc/self/status").read_text()
    taken = int(re.search(r"VmSize:\s+(\d+)", status)[1]) * 1024  # pyright: ignore[reportOptionalSubscript]
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def obeyed(text: str) -> str:
    """What a terminal would obey."""
    return "".join(c for c in text if c not in "\n\r\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs"))


def outcome(case: Case, rng: np.random.Generator, place: pathlib.Path, seconds: float = SECONDS) -> str | None:
    """Runs a case in `work/` of a place, and gives the line that refused it; fails if it ends otherwise than it should.

    Args:
        case: What is run.
        rng: What it follows from.
        place: All else in it has to stay as it is.
        seconds: It may take.
    """
    out, work, refusal = io.StringIO(), place / "work", None
    logger, handlers = logging.getLogger(), logging.getLogger().handlers
    logger.handlers = [logging.StreamHandler(out)]
    before = contents(place)
    work.mkdir()
    try:
        with limited(seconds), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            case(rng, work)
    except UserError as error:
        refusal = str(error)
        # Pillow has a MemoryError for streams that zlib can't follow, too.
        assert "\n" not in refusal and len(refusal) > 20 and "unable to allocate" not in refusal.lower()
    finally:
        logger.handlers = handlers
        shutil.rmtree(work)
    assert obeyed(out.getvalue() + (refusal or "")) == ""
    assert contents(place) == before
    return refusal


@pytest.fixture(scope="module")
def cases(finished: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Case]]:
    """The kinds of cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield fuzz_cases.kinds(finished, tmp_path_factory.mktemp("exported") / "exported")


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with the files of others."""
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "notes.txt").write_text("as it was")
    return tmp_path


# A thread of TensorStore goes on with what it can't read, when nobody waits for it any more.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", CASES)
def test_every_case_ends_as_it_should(cases: dict[str, Case], place: pathlib.Path, kind: str) -> None:
    count, refused = round(CASES[kind] * max(1.0, TIMES)), 0
    for number in range(count):
        rng = np.random.default_rng([SEED, sorted(CASES).index(kind), number])
        try:
            refused += outcome(cases[kind], rng, place) is not None
        except (Exception, TooLong) as error:
            raise AssertionError(f"case {number} of seed {SEED}") from error
    # Metrics have nothing to refuse: what can't be used is left out.
    if count >= 20 and kind != "metrics":
        assert 0 < refused < count


def _no_reason(work: pathlib.Path) -> None:
    raise UserError("no")


WRONG = {
    "raises": lambda work: {}["shape"],
    "no reason": _no_reason,
    "hangs": lambda work: time.sleep(9),
    "asks": lambda work: np.empty(2**40),
    "prints": lambda work: print("\x1b[2J"),
    "logs": lambda work: logging.getLogger("anybody").warning("\x1b[2J"),
    "escapes": lambda work: (work / "../others/notes.txt").write_text("changed"),
}


@pytest.mark.parametrize("what", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_noticed(what: Callable[[pathlib.Path], object], place: pathlib.Path) -> None:
    with pytest.raises((AssertionError, KeyError, MemoryError, TooLong)):
        outcome(lambda rng, work: what(work), np.random.default_rng(0), place, seconds=0.3)
