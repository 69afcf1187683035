"""Small runs end where they ended when their numbers were written down, and twice with the same bits.

`python tests/test_golden.py` writes the numbers anew, where a change of them is meant.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from runs_that_die import Command, differences
from tiny_runs import rows

from vae_jax.cli import main
from vae_jax.runs import checkpoints

GOLDEN = pathlib.Path(__file__).parent / "fixtures" / "golden.json"
# One device with all of the compiler's optimizations, eight with none, and the lowest versions of JAX, Flax and Optax
# that are supported differ by 3e-7 here, since they add up in other orders; the rest is for accelerators, which round
# products more coarsely. A learning rate that is 2% larger makes 1.6e-2.
TOLERANCE = 1e-3
SMALL = [
    *("--config.model.network.hidden=(16,)", "--config.model.latents=3", "--config.train.report=False"),
    *("--config.train.num_steps=300", "--config.train.log_every=100", "--config.train.checkpoint_every=300"),
]
RUNS = {
    "diagonal_gaussian": [],
    "iaf": [
        *("--config.model.posterior=iaf", "--config.model.posterior.flows=2", "--config.model.posterior.hidden=(16,)"),
        "--config.objective.analytic_kl=False",
    ],
}


def numbers(workdir: pathlib.Path, *arguments: str) -> dict[str, float]:
    """Trains a run; the terms of its bound in nats on each split, and the norm of each of its parameters."""
    main([f"--workdir={workdir}", *SMALL, *arguments])
    last = {row["split"]: row for row in rows(workdir)}
    terms = {f"{split} {name}": row[name] for split, row in last.items() for name in ("elbo", "reconstruction", "kl")}
    params = checkpoints.load(checkpoints.choose(workdir / "checkpoints", "latest"))["params"]
    norms = {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(np.linalg.norm(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    return {**terms, **norms}


def distance(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """The largest relative difference of any number."""
    assert set(ours) == set(theirs)
    return max(abs(ours[name] - theirs[name]) / abs(theirs[name]) for name in ours)


@pytest.mark.long
@pytest.mark.smoke
@pytest.mark.parametrize("name", RUNS)
def test_run_ends_where_it_did(name: str, tmp_path: pathlib.Path) -> None:
    found, golden = numbers(tmp_path / "run", *RUNS[name]), json.loads(GOLDEN.read_text())[name]
    assert set(found) == set(golden)
    for key, value in golden.items():
        assert found[key] == pytest.approx(value, rel=TOLERANCE), key


@pytest.mark.long
def test_a_slightly_larger_learning_rate_would_be_noticed(tmp_path: pathlib.Path) -> None:
    golden = json.loads(GOLDEN.read_text())["diagonal_gaussian"]
    assert distance(numbers(tmp_path / "run", "--config.train.learning_rate=1.02e-3"), golden) > 5 * TOLERANCE


@pytest.mark.manual
def test_same_bits_beside_a_load_on_the_machine(tmp_path: pathlib.Path) -> None:
    """Two processes that share nothing, not even compiled programs: no bit depends on which thread is first."""
    quiet, loaded = (
        Command(
            tmp_path / name, num_steps=40, environment={"JAX_COMPILATION_CACHE_DIR": str(tmp_path / f"cache of {name}")}
        )
        for name in ("quiet", "loaded")
    )
    quiet.finish()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        loaded.finish()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert differences(loaded.workdir, quiet.workdir) == []


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = {name: numbers(pathlib.Path(folder, name), *arguments) for name, arguments in RUNS.items()}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
