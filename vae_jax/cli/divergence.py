"""What to tell of a run whose numbers are no longer finite, and what to try."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import build, checkpoints
from vae_jax.cli.session import Session
from vae_jax.config import Config
from vae_jax.errors import UserError
from vae_jax.processes import is_writer
from vae_jax.training import BatchOrder, BrokenStep, Finding, explain, find_broken_step, replica_of

_TERMS = {"kl": "KL", "reconstruction": "reconstruction"}
_NAMED = 3
_GROWTH = 100.0
_LEARNED_NOISE = ("gaussian_learned", "gaussian_per_pixel")


def divergence(session: Session, step: int) -> UserError:
    """The error for a run that has diverged, with the step, the term, the images and the parameters that broke.

    They are found by taking the steps since the last checkpoint once more.

    Args:
        session: The run.
        step: By which numbers weren't finite.
    """
    state = session.restart()
    start = int(state.step)
    if is_writer():
        print(f"numbers are not finite by step {step}; taking steps {start + 1} to {step} again to see why", flush=True)
    broken = find_broken_step(session.run_steps, state, step, session.schedule.longest)
    saved = (
        f"the checkpoint of step {start} is whole"
        if checkpoints.listing(session.folder.checkpoints)
        else "no checkpoint was written yet"
    )
    if broken is None:
        return UserError(
            f"training has diverged by step {step}, but not where the steps since {start} were taken again; {saved}: "
            f"run the same command again, or {_slower(session.config)}"
        )
    finding, rows, replica, losses = _explained(session, broken)
    of_replica = "" if replica is None else f" of replica {replica} (seed {session.config.seed + replica})"
    earlier = f"; losses of the steps before: {', '.join(f'{loss:.4g}' for loss in losses)}" if losses else ""
    what = "training has diverged: at step"
    if session.config.train.skip_nonfinite:
        what = f"no step up to {step} can be taken any more, all are skipped; the first since step {start} was"
    return UserError(
        f"{what} {int(broken.state.step) + 1}{of_replica}: {_what(finding, rows)}{earlier}; the "
        f"largest parameter was {finding.largest:.3g} ({finding.largest_path}). {_mend(finding, losses, session)}; "
        f"{saved}"
    )


def _explained(session: Session, broken: BrokenStep) -> tuple[Finding, np.ndarray, int | None, list[float]]:
    """What broke, in which of the images, in which replica, and its losses before; on one device, from the host."""
    config, training, step = session.config, session.data.training, int(broken.state.step)
    order = BatchOrder(build.seeds_of(config), config.train.batch_size, len(training.images))
    indices = order.indices(np.array([step]))[0]
    # From all devices to one, whose step is looked at.
    state = jax.tree.map(jnp.asarray, jax.device_get(broken.state))
    labels = training.labels if session.model.num_classes else None
    replicas = range(config.num_seeds) if config.num_seeds > 1 else (None,)
    found = []
    for replica in replicas:
        rows = indices if replica is None else indices[replica]
        finding = explain(
            build.build_loss(config, session.model, len(training.images)),
            build.build_optimizer(config, session.schedule.num_steps, session.schedule.steps_per_epoch),
            build.build_preparation(session.data),
            state if replica is None else replica_of(state, replica),
            jnp.asarray(training.images[rows]),
            jax.random.key(config.seed + (replica or 0)),
            None if labels is None else jnp.asarray(labels[rows], jnp.int32),
            config.train.accumulation,
        )
        losses = [float(loss if replica is None else loss[replica]) for loss in broken.losses]
        found.append((finding, rows, replica, losses))
    return next((each for each in found if each[0].updated), found[0])


def _what(finding: Finding, rows: np.ndarray) -> str:
    """Which numbers aren't finite: the terms of the bound, or what comes after them; and all gradients."""
    terms = [
        f"{title} of {len(finding.images[name])} of {len(rows)} images is {finding.values[name]} (the first of them is "
        f"training image {rows[min(finding.images[name])]})"
        for name, title in _TERMS.items()
        if name in finding.images
    ]
    if terms:
        what = " and ".join(terms)
    elif not math.isfinite(finding.surrogate):
        what = f"the loss is {finding.surrogate}, though the terms of all images are finite"
    elif finding.gradients:
        what = f"the loss is finite ({finding.surrogate:.4g}), but gradients aren't"
    elif finding.updated:
        return f"loss and gradients are finite, but not what the optimizer made of {_some(finding.updated)}"
    else:
        return "something that is finite on one device wasn't"
    return f"{what}; gradients that aren't finite: {_some(finding.gradients) if finding.gradients else 'none'}"


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(paths[:_NAMED]) + more


def _mend(finding: Finding, losses: Sequence[float], session: Session) -> str:
    """What to try, the likeliest first."""
    config = session.config
    advice = []
    only_optimizer = not finding.images and not finding.gradients and math.isfinite(finding.surrogate)
    if only_optimizer and config.train.adam_epsilon == 0.0:
        advice.append("raise --config.train.adam_epsilon (now 0: zero is divided by zero where a gradient is zero)")
    if config.model.likelihood in _LEARNED_NOISE and losses and min(losses) < 0.0:
        advice.append(
            "the noise of p(x|z) may have shrunk to nothing, as it does where pixels never vary: use "
            "--config.model.likelihood=discretized_logistic or gaussian"
        )
    if config.model.dtype != "float32":
        advice.append("use --config.model.dtype=float32")
    advice.append(_slower(config))
    # Where it grew and grew, the parameters are lost by then: nothing comes of leaving steps out.
    grew = bool(losses) and losses[-1] > _GROWTH * max(1.0, abs(losses[0]))
    if not config.train.skip_nonfinite and not grew:
        advice.append("leave such steps out and count them with --config.train.skip_nonfinite=True")
    return f"To mend it, {'; or '.join(advice)}"


def _slower(config: Config) -> str:
    return (
        f"start anew with a smaller --config.train.learning_rate (now {config.train.learning_rate:g}), with "
        "--config.train.clip_norm or with --config.train.warmup_steps"
    )
