"""What broke a step after which numbers aren't finite: found by taking the steps once more.

Steps are functions of seed and number, so a run needs to keep nothing for this, and pays nothing for it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from vae_jax.keys import Stream, stream_key
from vae_jax.training.loop import RunSteps
from vae_jax.training.step import LossFunction, Metrics, Pixels, Preparation, TrainState, all_finite
from vae_jax.vae import Label

_EARLIER_LOSSES = 5


class BrokenStep(NamedTuple):
    """A step, counted from 0, that turned finite numbers into others.

    Attributes:
        state: Right before it.
        losses: Of the last steps before it, oldest first; an array over the replicas where there are any.
    """

    state: TrainState
    losses: list[Float[np.ndarray, "*replicas"]]


class Finding(NamedTuple):
    """What of a step isn't finite.

    Attributes:
        images: By term of the bound, which images of the batch have a value that isn't finite.
        values: By term, the value of the first of them.
        surrogate: What was differentiated.
        gradients: Parameters whose gradient isn't finite, by their paths.
        updated: Parameters that aren't finite after the step, by their paths.
        largest: The largest magnitude of a parameter before the step.
        largest_path: Where it is.
    """

    images: dict[str, list[int]]
    values: dict[str, float]
    surrogate: float
    gradients: list[str]
    updated: list[str]
    largest: float
    largest_path: str


def find_broken_step(run_steps: RunSteps, state: TrainState, last_step: int, longest: int) -> BrokenStep | None:
    """Takes steps until numbers aren't finite.

    Args:
        run_steps: The steps of the run.
        state: Where to start: finite; donated.
        last_step: Where to give up.
        longest: The most steps that are taken at once.

    Returns:
        The step, or None if everything stays finite: not all devices add in the same order every time.
    """
    step, losses = int(state.step), []
    while step < last_step:
        count = min(longest, last_step - step)
        before = jax.tree.map(jnp.copy, state)
        state, metrics = run_steps(state, step, count)
        if _is_sound(state, metrics):
            losses = [*losses, *(np.asarray(each["loss"]) for each in jax.device_get(metrics))][-_EARLIER_LOSSES:]
        elif count == 1:
            return BrokenStep(before, losses)
        else:
            # Somewhere among these: one at a time from here on.
            state, longest, losses = before, 1, []
            continue
        step += count
    return None


def explain(
    loss_function: LossFunction,
    tx: optax.GradientTransformation,
    prepare: Preparation,
    state: TrainState,
    batch: Pixels,
    key: Key[Array, ""],
    label: Label = None,
    num_parts: int = 1,
) -> Finding:
    """Looks at everything in one step of one model.

    Args:
        loss_function: As for `make_train_step`, like the next two.
        tx: The optimizer.
        prepare: What makes x of images.
        state: Before the step.
        batch: Its images.
        key: Of the run.
        label: Their classes, for a conditional model.
        num_parts: Parts of the batch, as for `make_train_step`.
    """
    x = prepare(batch, stream_key(key, Stream.BINARIZATION, state.step))
    noise_key = stream_key(key, Stream.POSTERIOR_NOISE, state.step)
    surrogate, gradients, images, values = 0.0, [], {}, {}
    differentiate = jax.jit(jax.value_and_grad(loss_function, has_aux=True))
    for part in range(num_parts):
        part_key = jax.random.fold_in(noise_key, part) if num_parts > 1 else noise_key
        labels = None if label is None else label[part::num_parts]
        (loss, terms), gradient = differentiate(state.params, x[part::num_parts], part_key, state.step, labels)
        surrogate += float(loss) / num_parts
        gradients.append(gradient)
        for name, term in terms._asdict().items():
            each = np.zeros(0) if term is None else np.asarray(term)
            broken = np.flatnonzero(~np.isfinite(each))
            if len(broken):
                images.setdefault(name, []).extend(int(part + num_parts * index) for index in broken)
                values.setdefault(name, float(each[broken[0]]))
    gradient = jax.tree.map(lambda *leaves: sum(leaves) / num_parts, *gradients)
    updates, _ = tx.update(gradient, state.opt_state, state.params)
    magnitudes = {path: float(jnp.max(jnp.abs(leaf))) for path, leaf in _leaves(state.params) if leaf.size}
    largest_path = max(magnitudes, key=lambda path: magnitudes[path])
    return Finding(
        images,
        values,
        surrogate,
        _not_finite(gradient),
        _not_finite(optax.apply_updates(state.params, updates)),
        magnitudes[largest_path],
        largest_path,
    )


def _is_sound(state: TrainState, metrics: list[Metrics]) -> bool:
    """Whether all is finite, and no step was skipped because it wasn't."""
    found = jax.device_get(metrics)
    skipped = any(np.any(each.get("skipped", 0.0)) for each in found)
    return not skipped and bool(all_finite((state, metrics)))


def _leaves(tree: Any) -> list[tuple[str, Array]]:
    named = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in named]


def _not_finite(tree: Any) -> list[str]:
    return [path for path, leaf in _leaves(tree) if not bool(jnp.all(jnp.isfinite(leaf)))]
