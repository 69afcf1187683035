"""Explains why the numbers of a run are no longer finite, and what to try."""

import dataclasses

from vae_jax import build
from vae_jax.cli.terminal import say
from vae_jax.cli.training_run import TrainingRun
from vae_jax.errors import UserError
from vae_jax.processes import is_writer
from vae_jax.runs import checkpoints
from vae_jax.settings import read_part
from vae_jax.training import BrokenStep, find_broken_step

SLOWER = (
    "start again with a smaller --config.train.learning_rate, with --config.train.clip_norm or with "
    "--config.train.warmup_steps"
)
_NUM_PATHS = 3


def divergence(run: TrainingRun, step: int) -> UserError:
    """The error for a run that has diverged: the step, the terms and the parameters that broke, and what to try.

    Takes the steps since the last checkpoint again to find them.

    Args:
        run: The run.
        step: A step at which a number wasn't finite.
    """
    state = run.load_state()
    start = int(state.step)
    if is_writer():
        say(f"numbers are not finite at step {step}; taking steps {start + 1} to {step} again to find the cause")
    steps, skips = run.steps, run.config.train.skip_nonfinite
    if skips:
        train = dataclasses.replace(run.config.train, skip_nonfinite=False)
        config = dataclasses.replace(run.config, train=train)
        steps = build.build_steps(config, run.model, run.data, run.schedule, run.mesh)
    broken = find_broken_step(steps, state, step, run.schedule.longest, run.num_replicas)
    any_saved = checkpoints.listing(run.folder.checkpoints)
    saved = f"the checkpoint of step {start} is good" if any_saved else "no checkpoint was written yet"
    if broken is None:
        return UserError(
            f"training diverged by step {step}, but not when the steps after {start} were taken again; {saved}: run "
            f"the same command again, or {SLOWER}"
        )
    seed = "" if broken.replica is None else f" of replica {broken.replica} (seed {run.config.seed + broken.replica})"
    what = f"all steps up to {step} are skipped, the first of them at" if skips else "at"
    return UserError(
        f"training diverged: {what} step {broken.step}{seed} {_cause(broken)}. To fix it, {_advice(broken, run)}; "
        f"{saved}"
    )


def _cause(broken: BrokenStep) -> str:
    """Which terms and parameters aren't finite."""
    paths, terms = broken.paths, ", ".join(f"{name} is {value}" for name, value in broken.terms.items())
    more = f" and {len(paths) - _NUM_PATHS} more" if len(paths) > _NUM_PATHS else ""
    parameters = (", ".join(paths[:_NUM_PATHS]) or "none of the parameters") + more
    terms = terms or "the loss is finite, but its gradient or the optimizer's update isn't"
    return f"{terms}; not finite after it: {parameters}"


def _advice(broken: BrokenStep, run: TrainingRun) -> str:
    """What to try, the likeliest first."""
    config, advice = run.config, []
    if not broken.terms and read_part("train.optimizer", config.train.optimizer).settings.get("epsilon") == 0.0:
        advice.append("raise --config.train.optimizer.epsilon (now 0: where a gradient is 0, Adam divides 0 by 0)")
    # Only a density of continuous pixels exceeds 1.
    if broken.loss_before is not None and broken.loss_before < 0.0:
        likelihoods = "--config.model.likelihood=discretized_logistic or gaussian"
        advice.append(f"the noise of p(x|z) may have shrunk to nothing, if some pixels never vary: use {likelihoods}")
    if read_part("model.network", config.model.network).settings.get("dtype", "float32") != "float32":
        advice.append("use --config.model.network.dtype=float32")
    advice.append(f"{SLOWER} (the learning rate is {config.train.learning_rate:g})")
    if not config.train.skip_nonfinite:
        advice.append("skip such steps with --config.train.skip_nonfinite=True")
    return "; or ".join(advice)
