"""Runs that diverge: what is printed, kept and skipped."""

import math
import pathlib
from unittest import mock

import pytest
from tiny_runs import MODEL, rows

from vae_jax.cli import main
from vae_jax.cli.divergence import _advice
from vae_jax.cli.training_run import TrainingRun
from vae_jax.config import Config
from vae_jax.training import BrokenStep

SGD = ["--config.train.optimizer=sgd", "--config.train.learning_rate=1e6"]
STEPS = ["--config.train.num_steps=60", "--config.train.log_every=20", "--config.train.checkpoint_every=100"]
CAUSES = {
    "learning rate": (SGD, ["loss is ", "not finite after it: ", "the learning rate is 1e+06", "skip_nonfinite"]),
    "bfloat16": (["--config.model.network.dtype=bfloat16", *SGD], ["use --config.model.network.dtype=float32"]),
    # Corners of the digits are always black: their weights have no gradient.
    "zero divided by zero": (
        ["--config.train.optimizer.epsilon=0"],
        [
            "the loss is finite, but its gradient or the optimizer's update isn't",
            "raise --config.train.optimizer.epsilon",
        ],
    ),
    "a replica": (["--config.num_seeds=2", "--config.seed=3", *SGD], ["of replica ", "(seed "]),
}


@pytest.mark.long
@pytest.mark.parametrize(("arguments", "words"), CAUSES.values(), ids=CAUSES)
def test_the_cause_of_a_divergence_is_told(
    arguments: list[str], words: list[str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([f"--workdir={tmp_path / 'run'}", *MODEL, *STEPS, *arguments])
    message = capsys.readouterr().err
    assert caught.value.code == 2 and message.count("\n") == 1
    words = ["training diverged: at step ", "no checkpoint was written yet", *words]
    assert [word for word in words if word not in message] == []
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(("loss_before", "told"), [(-50.0, True), (50.0, False), (None, False)])
def test_learned_noise_that_shrinks_to_nothing_is_told(loss_before: float | None, told: bool) -> None:
    """Only a density of continuous pixels gives a negative loss: what comes before such a break is told."""
    broken = BrokenStep(7, None, {"reconstruction": math.nan}, [], loss_before)
    run = mock.Mock(spec=TrainingRun, config=Config())
    assert ("the noise of p(x|z) may have shrunk" in _advice(broken, run)) == told


@pytest.mark.long
def test_skipped_steps_are_counted_and_end_the_run_if_all_are(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main([f"--workdir={tmp_path / 'run'}", *MODEL, *STEPS, "--config.train.skip_nonfinite=True", *SGD])
    message = capsys.readouterr().err
    assert "all steps up to 40 are skipped, the first of them at step " in message and "skip_nonfinite" not in message
    assert 0 < rows(tmp_path / "run")[0]["skipped_steps"] < 20
