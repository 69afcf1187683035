"""Some of the cases of `fuzz.py`, and that it notices what it is there for; thousands of them by hand."""

import logging
import os
import pathlib
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

pytestmark = pytest.mark.long

HERE = pathlib.Path(__file__).parent
CASES = {
    **{"npz": 90, "folder": 60, "config": 90, "metrics": 30, "latents": 20},
    **{"checkpoint": 5, "export": 6, "report": 1},
}


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The script, and a fuzzer of its own; the environment as it was afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
            patch.setenv(name, os.environ.get(name, ""))
        import fuzz

        yield fuzz, fuzz.Fuzzer(tmp_path_factory.mktemp("fuzz"), seed=0)
        for name in ("fuzz", "fuzz_cases", "fuzz_mutations"):
            sys.modules.pop(name)


# A thread of TensorStore goes on with what it can't read, when nobody waits for it any more.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", CASES)
def test_every_case_ends_as_it_should(fuzz, kind: str) -> None:
    _, fuzzer = fuzz
    before = fuzzer.refused
    for number in range(CASES[kind]):
        failure = fuzzer.case(kind, number)
        assert failure is None, f"{failure.what}\n{failure.trace}"
    # Metrics and reports have nothing to refuse: they leave out what they can't use.
    if CASES[kind] >= 20 and kind != "metrics":
        assert 0 < fuzzer.refused - before < CASES[kind]


def _raise(rng: np.random.Generator, work: pathlib.Path) -> None:
    raise KeyError("shape")


def _hang(rng: np.random.Generator, work: pathlib.Path) -> None:
    while True:
        time.sleep(0.01)


def _work(rng: np.random.Generator, work: pathlib.Path) -> None:
    while True:
        pass


def _hog(rng: np.random.Generator, work: pathlib.Path) -> None:
    np.ones(2**28 + 2**24, np.float32)


def _ask(rng: np.random.Generator, work: pathlib.Path) -> None:
    np.empty(2**40)


def _print(rng: np.random.Generator, work: pathlib.Path) -> None:
    print("\x1b[2J")


def _log(rng: np.random.Generator, work: pathlib.Path) -> None:
    logging.getLogger("anybody").warning("\x1b[2J")


def _escape(rng: np.random.Generator, work: pathlib.Path) -> None:
    (work / "../others/deep/file.json").write_text("changed")


def _leave(rng: np.random.Generator, work: pathlib.Path) -> None:
    (work / "../new").write_text("")


WRONG = {
    _raise: "KeyError",
    _hang: "more than 0.3 s",
    _work: "more than 0.2 s",
    _hog: "MB of memory",
    _ask: "MemoryError",
    _print: "printed '\\x1b'",
    _log: "printed '\\x1b'",
    _escape: "deep/file.json",
    _leave: "new",
}


# Where earlier tests of a process have taken more memory, what the hog takes can't be seen.
ALONE = (_hog,)


@pytest.mark.parametrize(
    ("case", "words"),
    [pytest.param(*item, marks=[pytest.mark.manual] if item[0] in ALONE else []) for item in WRONG.items()],
    ids=[case.__name__ for case in WRONG],
)
def test_what_is_wrong_is_noticed(fuzz, case, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, fuzzer = fuzz
    monkeypatch.setattr(script, "SECONDS", 0.2 if case is _work else 10.0)
    monkeypatch.setattr(script, "SECONDS_OF_CLOCK", 0.3 if case is _hang else 60.0)
    monkeypatch.setitem(fuzzer._kinds, "npz", case)
    failure = fuzzer.case("npz", 0)
    assert failure is not None and words in failure.what


def test_a_case_follows_from_its_number(fuzz, monkeypatch: pytest.MonkeyPatch) -> None:
    _, fuzzer = fuzz
    drawn = []
    monkeypatch.setitem(fuzzer._kinds, "npz", lambda rng, work: drawn.append(rng.integers(2**60)))
    for number in (0, 1, 0):
        fuzzer.case("npz", number)
    assert drawn[0] == drawn[2] != drawn[1]
