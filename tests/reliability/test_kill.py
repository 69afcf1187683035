"""A run that is killed anywhere, again and again, ends as the run that was never killed; kill.py does it for longer."""

import dataclasses
import pathlib
import random
import shutil

import numpy as np
import pytest
from runs_that_die import Command, differences, finish, kill_to_the_end, rows

from vae_jax.config import Config
from vae_jax.errors import UserError
from vae_jax.runs import RunFolder, checkpoints

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A run that was never killed, and whose compiled programs the others find."""
    folder = tmp_path_factory.mktemp("kill")
    command = Command(folder / "whole", num_steps=40)
    finish(command.start(), command.log)
    return command


def test_killed_run_ends_as_the_run_never_killed(whole: Command) -> None:
    command = dataclasses.replace(whole, workdir=whole.workdir.with_name("killed"))
    # The seed stands for: in the middle of a checkpoint, at a picture, at a new checkpoint.
    kills = list(kill_to_the_end(command, 2, random.Random(5)))
    assert len(kills) > 1
    assert differences(command.workdir, whole.workdir) == []


def test_killed_run_of_two_players_ends_as_the_run_never_killed(tmp_path: pathlib.Path) -> None:
    command = Command(tmp_path / "whole", num_steps=30, more=["--config.objective=factor_vae(hidden=(8,), every=2)"])
    finish(command.start(), command.log)
    killed = dataclasses.replace(command, workdir=tmp_path / "killed")
    assert len(list(kill_to_the_end(killed, 2, random.Random(6)))) > 1
    assert differences(killed.workdir, command.workdir) == []
    assert "players" in checkpoints.load(checkpoints.choose(command.workdir / "checkpoints", "latest"))["params"]


def test_no_row_is_missing_or_there_twice(whole: Command) -> None:
    steps = [(row["step"], row["split"]) for row in rows(whole.workdir)]
    expected = [(step, "train") for step in {*range(3, 41, 3), *range(10, 41, 10)}]
    expected += [(step, split) for step in range(10, 41, 10) for split in ("validation", "test")]
    assert sorted(steps) == sorted(expected)


def test_differences_are_seen(whole: Command, tmp_path: pathlib.Path) -> None:
    other = pathlib.Path(shutil.copytree(whole.workdir, tmp_path / "other"))
    assert differences(other, whole.workdir) == []
    newest = checkpoints.choose(other / "checkpoints", "latest")
    state = checkpoints.load(newest)
    bias = state["params"]["posterior"]["mean"]["bias"]
    state["params"]["posterior"]["mean"]["bias"] = bias.at[0].set(np.nextafter(bias[0], np.float32(9)))
    checkpoints.save(other / "checkpoints", newest.step, state, newest.score, keep=3)
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join(lines[:-1]))
    picture = min((other / "images").iterdir())
    picture.write_bytes(picture.read_bytes() + b"\0")
    (other / "config.json").write_text("{}")
    (other / "images.json").unlink()
    (other / "images.json").write_text("{}")
    (other / "more").write_text("")
    found = differences(other, whole.workdir)
    array = f"checkpoint {newest.step}, ['params']['posterior']['mean']['bias']"
    assert found[:-1] == [array, "metrics.jsonl", "config.json", "images.json", f"images/{picture.name}"]
    assert "more" in found[-1]


@pytest.mark.parametrize("leftover", [".config.unfinished.json", ".images.unfinished.json", ".probe.unfinished"])
def test_what_a_kill_leaves_is_no_reason_to_refuse(tmp_path: pathlib.Path, leftover: str) -> None:
    (tmp_path / leftover).write_text("{")
    RunFolder(tmp_path).check(Config())
    (tmp_path / leftover[1:]).write_text("{")
    with pytest.raises(UserError):
        RunFolder(tmp_path).check(Config())


@pytest.mark.manual
@pytest.mark.parametrize("leftover", [".config.unfinished.json", ".images.unfinished.json"])
def test_kill_before_the_config_is_whole(whole: Command, tmp_path: pathlib.Path, leftover: str) -> None:
    """What is left in the folder is the tool's own, and no reason to refuse it."""
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / leftover).write_text("{")
    command = dataclasses.replace(whole, workdir=tmp_path / "early")
    finish(command.start(), command.log)
    assert differences(command.workdir, whole.workdir) == []
