"""Tiny runs that many tests share: what they share is compiled once."""

import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from vae_jax.cli import main
from vae_jax.runs import checkpoints

MODEL = ["--config.model.network=mlp(hidden=(8,))", "--config.model.latents=2", "--config.train.report=False"]
TINY = [
    *(*MODEL, "--config.train.num_steps=12", "--config.train.log_every=5", "--config.train.checkpoint_every=6"),
    "--config.evaluate.num_samples=20",
]


def train(folder: pathlib.Path, *arguments: str) -> pathlib.Path:
    """A run in this folder."""
    main([f"--workdir={folder}", *TINY, *arguments])
    return folder


def rows(run: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics, without what is a matter of time."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name != "images_per_second"} for row in found]


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A file as strict readers take it: no NaN, no Infinity."""
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{path} has {name}"))


def bits(run: pathlib.Path, which: str = "latest") -> dict[str, bytes]:
    """All arrays of a checkpoint, byte for byte."""
    state = checkpoints.load(checkpoints.choose(run / "checkpoints", which))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run on the digits with checkpoints of steps 6 and 12, which no test may change."""
    return train(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def run(finished: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of it that a test may change."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))
