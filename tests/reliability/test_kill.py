"""A run that is killed anywhere, again and again, ends as the run that was never killed; kill.py does it for longer."""

import dataclasses
import pathlib
import random

import pytest
from runs_that_die import Command, differences, finish, kill_to_the_end, rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A run that was never killed, and whose compiled programs the others find."""
    folder = tmp_path_factory.mktemp("kill")
    command = Command(folder / "whole", num_steps=40, environment={"XDG_CACHE_HOME": str(folder / "cache")})
    finish(command.start(), command.log)
    return command


def test_killed_run_ends_as_the_run_never_killed(whole: Command) -> None:
    command = dataclasses.replace(whole, workdir=whole.workdir.with_name("killed"))
    # The seed stands for: in the middle of a checkpoint, at a picture, at a new checkpoint.
    kills = list(kill_to_the_end(command, 3, random.Random(5)))
    assert len(kills) > 1
    assert differences(command.workdir, whole.workdir) == []


def test_no_row_is_missing_or_there_twice(whole: Command) -> None:
    steps = [(row["step"], row["split"]) for row in rows(whole.workdir)]
    expected = [(step, "train") for step in {*range(3, 41, 3), *range(10, 41, 10)}]
    expected += [(step, split) for step in range(10, 41, 10) for split in ("validation", "test")]
    assert sorted(steps) == sorted(expected)


def test_differences_are_seen(whole: Command, tmp_path: pathlib.Path) -> None:
    other = dataclasses.replace(whole, workdir=tmp_path / "other", more=["--config.seed=1"])
    finish(other.start(), other.log)
    found = differences(other.workdir, whole.workdir)
    assert "metrics.jsonl" in found and "config.json" in found
    assert any("params" in name for name in found) and any(name.startswith("images/") for name in found)


@pytest.mark.parametrize("leftover", [".config.unfinished.json", ".images.unfinished.json"])
def test_kill_before_the_config_is_whole(whole: Command, tmp_path: pathlib.Path, leftover: str) -> None:
    """What is left in the folder is the tool's own, and no reason to refuse it."""
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / leftover).write_text("{")
    command = dataclasses.replace(whole, workdir=tmp_path / "early")
    finish(command.start(), command.log)
    assert differences(command.workdir, whole.workdir) == []
