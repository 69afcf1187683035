"""Finds the step, terms and parameters that first became NaN by taking the steps again.

A step depends only on the seed, its number and the state before it, so training has to record nothing for this.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.training.loop import RunSteps
from vae_jax.training.step import TrainState, all_finite, replica_of


class BrokenStep(NamedTuple):
    """The first step that gave numbers that aren't finite.

    Attributes:
        step: Number of the step, from 1.
        replica: The replica in which it happened; None for a run of one model.
        terms: The metrics that aren't finite (means over the batch), by name.
        paths: The parameters that aren't finite after the step; of the optimizer's state if all parameters are finite.
        loss_before: The last finite loss, or None if there was none.
    """

    step: int
    replica: int | None
    terms: dict[str, float]
    paths: list[str]
    loss_before: float | None


def find_broken_step(
    run_steps: RunSteps, state: TrainState, last_step: int, longest: int, num_replicas: int | None = None
) -> BrokenStep | None:
    """Takes steps until a number isn't finite.

    Args:
        run_steps: The steps of the run, which must not skip steps.
        state: A finite state to start from; donated.
        last_step: Where to stop.
        longest: The most steps to take at once.
        num_replicas: None for a run of one model.

    Returns:
        The first such step, or None if all numbers stay finite: some devices don't add in the same order every time.
    """
    step, loss = int(state.step), None
    while step < last_step:
        count = min(longest, last_step - step)
        before = jax.tree.map(jnp.copy, state)
        state, metrics = run_steps(state, step, count)
        if bool(all_finite((state, metrics))):
            step, loss = step + count, metrics[-1]["loss"]
        elif count > 1:
            # It is among these steps: take them one by one.
            state, longest = before, 1
        else:
            state, metrics, loss = jax.device_get((state, metrics[0], loss))
            if num_replicas is None:
                return _describe(state, metrics, loss)
            found = [_describe(*_replica_of(state, metrics, loss, index), index) for index in range(num_replicas)]
            return next((broken for broken in found if broken.terms or broken.paths), found[0])
    return None


def _replica_of(
    state: TrainState, metrics: dict[str, Any], loss: Any, index: int
) -> tuple[TrainState, dict[str, Any], Any]:
    return replica_of(state, index), *jax.tree.map(lambda leaf: leaf[index], (metrics, loss))


def _describe(state: TrainState, metrics: dict[str, Any], loss: Any, replica: int | None = None) -> BrokenStep:
    terms = {name: float(value) for name, value in metrics.items() if value is not None and not np.isfinite(value)}
    paths = _not_finite(state.params) or _not_finite(state.model_state) or _not_finite(state.opt_state)
    return BrokenStep(int(state.step), replica, terms, paths, None if loss is None else float(loss))


def _not_finite(tree: Any) -> list[str]:
    named = jax.tree_util.tree_leaves_with_path(tree)
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, leaf in named if not np.all(np.isfinite(leaf))
    ]
