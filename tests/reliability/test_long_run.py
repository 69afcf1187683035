"""The watch over long runs sees what grows; a run of 200 epochs by hand, thousands with long_run.py."""

import dataclasses
import pathlib

import pytest
from long_run import Level, Tail, growth, long_command, settled, shown, watch

STEADY = [Level(step, 400.0 + step % 7, 30 + step % 2, 20, 4, 300) for step in range(100, 2100, 100)]
LEAKS = {"megabytes": 3.0, "files": 1, "threads": 1, "entries": 1, "kilobytes": 20}


def test_what_is_steady_does_not_grow() -> None:
    assert growth(STEADY) == []


@pytest.mark.parametrize(("name", "step"), LEAKS.items())
def test_what_grows_is_seen(name: str, step: float) -> None:
    leaking = [
        dataclasses.replace(level, **{name: getattr(level, name) + number * step})
        for number, level in enumerate(STEADY)
    ]
    (found,) = growth(leaking)
    assert found.startswith(f"{name} grew from")


def test_what_is_taken_at_the_start_may_stay() -> None:
    start = [dataclasses.replace(level, megabytes=200.0, files=10, threads=5) for level in STEADY[:4]]
    assert growth([*start, *STEADY[4:]]) == []


def test_what_a_checkpoint_takes_for_a_while_is_no_level() -> None:
    busy = dataclasses.replace(STEADY[0], files=60, threads=40, megabytes=450.0)
    assert settled([STEADY[0], busy, STEADY[0]]) == STEADY[0]


def test_tail_of_a_file_that_is_written_to(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert tail.last_step() == 0
    with path.open("w") as file:
        for text, expected in (('{"step": 3}\n{"st', 3), ('ep": 5}\n{"step": 7}\n', 7), ("", 7)):
            file.write(text)
            file.flush()
            assert tail.last_step() == expected


@pytest.mark.manual
def test_run_of_200_epochs(tmp_path: pathlib.Path) -> None:
    levels = watch(long_command(tmp_path / "run", 200), 8)
    assert len(levels) == 8 and growth(levels) == [], shown(levels)
