"""Runs that diverge because of the learning rate, the data or bfloat16: what is printed, kept and skipped."""

import json
import math
import pathlib
from unittest import mock

import pytest

from vae_jax.cli import main
from vae_jax.cli.divergence import _advice
from vae_jax.cli.training_run import TrainingRun
from vae_jax.config import Config
from vae_jax.training import BrokenStep

pytestmark = pytest.mark.long

SMALL = [
    *("--config.model.network.hidden=(8,)", "--config.model.latents=2", "--config.train.report=False"),
    *("--config.train.num_steps=60", "--config.train.log_every=20", "--config.train.checkpoint_every=100"),
]
SGD = "--config.train.optimizer=sgd"


def diverged(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    message = capsys.readouterr().err
    assert caught.value.code == 2 and message.count("\n") == 1
    assert "training diverged: at step " in message
    return message


def test_learning_rate(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    message = diverged(capsys, f"--workdir={tmp_path / 'run'}", *SMALL, SGD, "--config.train.learning_rate=1e6")
    assert "loss is " in message and "not finite after it: " in message and "no checkpoint was written yet" in message
    assert "the learning rate is 1e+06" in message and "skip_nonfinite" in message
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(("loss_before", "told"), [(-50.0, True), (50.0, False), (None, False)])
def test_learned_noise_that_shrinks_to_nothing(loss_before: float | None, told: bool) -> None:
    """Only a density of continuous pixels gives a negative loss: what comes before such a break is told."""
    broken = BrokenStep(7, None, {"reconstruction": math.nan}, [], loss_before)
    run = mock.Mock(spec=TrainingRun, config=Config())
    assert ("the noise of p(x|z) may have shrunk" in _advice(broken, run)) == told


def test_bfloat16(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--config.model.network.dtype=bfloat16", SGD, "--config.train.learning_rate=1e4"]
    message = diverged(capsys, f"--workdir={tmp_path / 'run'}", *SMALL, *arguments)
    assert "To fix it, use --config.model.network.dtype=float32" in message


def test_optimizer_divides_by_zero(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    # Corners of the digits are always black: their weights have no gradient.
    message = diverged(capsys, f"--workdir={tmp_path / 'run'}", *SMALL, "--config.train.optimizer.epsilon=0")
    assert "the loss is finite, but its gradient or the optimizer's update isn't" in message
    assert "raise --config.train.optimizer.epsilon" in message


@pytest.mark.manual
def test_diverged_replica_is_named(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    replicas = ["--config.num_seeds=2", "--config.seed=3", SGD, "--config.train.learning_rate=1e6"]
    message = diverged(capsys, f"--workdir={tmp_path / 'run'}", *SMALL, *replicas)
    assert "of replica 0 (seed 3)" in message or "of replica 1 (seed 4)" in message


def test_skipped_steps_are_counted_and_end_the_run_if_all_are_skipped(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    skip = ["--config.train.skip_nonfinite=True", SGD, "--config.train.learning_rate=1e6"]
    with pytest.raises(SystemExit):
        main([f"--workdir={tmp_path / 'run'}", *SMALL, *skip])
    message = capsys.readouterr().err
    assert "all steps up to 40 are skipped, the first of them at step " in message and "skip_nonfinite" not in message
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < first["skipped_steps"] < 20
