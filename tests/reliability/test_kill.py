"""A run that is killed anywhere, again and again, ends as the run that was never killed.

`VAE_JAX_KILLS=50 pytest -n 0 -m manual tests/reliability/test_kill.py` kills as many times as that.
"""

import dataclasses
import os
import pathlib
import random
import shutil

import numpy as np
import pytest
from runs_that_die import Command, differences, kill_to_the_end
from tiny_runs import rows

from vae_jax.config import Config
from vae_jax.errors import UserError
from vae_jax.runs import RunFolder, checkpoints

KILLS = int(os.environ.get("VAE_JAX_KILLS", "15"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """A run that was never killed, and whose compiled programs the others find."""
    command = Command(tmp_path_factory.mktemp("kill") / "whole", num_steps=40)
    command.finish()
    return command


@pytest.mark.long
@pytest.mark.parametrize(
    "more", [(), ("--config.num_seeds=2",), ("--config.objective=factor_vae(hidden=(8,), every=2)",)]
)
def test_a_killed_run_ends_as_the_run_never_killed(more: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    command = Command(tmp_path / "whole", num_steps=30, more=more)
    command.finish()
    killed = dataclasses.replace(command, workdir=tmp_path / "killed")
    assert kill_to_the_end(killed, 2, random.Random(6)) > 1
    assert differences(killed.workdir, command.workdir) == []
    params = checkpoints.load(checkpoints.choose(command.workdir / "checkpoints", "latest"))["params"]
    assert ("players" in params) == any("factor_vae" in each for each in more)


@pytest.mark.manual
@pytest.mark.parametrize(("devices", "processes"), [(1, 1), (8, 1), (2, 2)])
def test_many_kills_change_nothing(devices: int, processes: int, tmp_path: pathlib.Path) -> None:
    command = Command(tmp_path / "whole", devices=devices, processes=processes)
    command.finish()
    rng, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        killed = dataclasses.replace(command, workdir=tmp_path / f"killed{runs}")
        kills += kill_to_the_end(killed, min(12, KILLS - kills), rng)
        assert differences(killed.workdir, command.workdir) == []
        runs += 1


@pytest.mark.long
def test_no_row_is_missing_or_there_twice(whole: Command) -> None:
    steps = [(row["step"], row["split"]) for row in rows(whole.workdir)]
    expected = [(step, "train") for step in {*range(3, 41, 3), *range(10, 41, 10)}]
    expected += [(step, split) for step in range(10, 41, 10) for split in ("validation", "test")]
    assert sorted(steps) == sorted(expected)


@pytest.mark.long
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
    for name in ("config.json", "images.json", "more"):
        (other / name).write_text("{}")
    expected = [f"arrays of checkpoint {newest.step}", "metrics.jsonl", "names of files", "config.json", "images.json"]
    assert differences(other, whole.workdir) == [*expected, f"images/{picture.name}"]


@pytest.mark.parametrize("leftover", [".config.unfinished.json", ".images.unfinished.json", ".probe.unfinished"])
def test_what_a_kill_leaves_is_no_reason_to_refuse(tmp_path: pathlib.Path, leftover: str) -> None:
    (tmp_path / leftover).write_text("{")
    RunFolder(tmp_path).check(Config())
    (tmp_path / leftover[1:]).write_text("{")
    with pytest.raises(UserError):
        RunFolder(tmp_path).check(Config())
