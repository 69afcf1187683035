"""One training step as a pure function."""

import functools
import typing
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from vae_jax.keys import Stream, stream_key
from vae_jax.objectives import ElboTerms
from vae_jax.shapes import Count, ImageBatch, RandomKey, Scalar
from vae_jax.vae import Label, Params

LossFunction = Callable[..., tuple[Scalar, ElboTerms]]
# As they are kept: grey levels, or values that need no preparation.
StoredImages = UInt8[Array, "b h w c"] | ImageBatch
Preparation = Callable[[StoredImages, RandomKey], ImageBatch]
Metrics = dict[str, Float[Array, "*replicas"] | None]


# A tree may hold anything while it is mapped over (None, strings, shapes), so its fields aren't checked.
@typing.no_type_check
@flax.struct.dataclass
class TrainState:
    """Everything that a checkpoint holds; no key and no position in the data: both follow from `step`.

    With replicas all but the step has an axis for them in front.

    Attributes:
        step: Steps taken.
        params: Parameters of the model.
        opt_state: State of the optimizer.
        average: Exponential moving average of the parameters, or None.
    """

    step: Count
    params: Params
    opt_state: Any
    average: Params | None

    @property
    def evaluated_params(self) -> Params:
        """What is evaluated and sampled from: the average where one is kept."""
        return self.params if self.average is None else self.average


# (state, batch, key, label=None) -> (state, metrics)
TrainStep = Callable[..., tuple[TrainState, Metrics]]
# Which axis of a state counts the replicas.
REPLICA_AXES: Any = TrainState(step=typing.cast(Any, None), params=0, opt_state=0, average=0)


def create_state(params: Params, tx: optax.GradientTransformation, with_average: bool) -> TrainState:
    """The state before the first step.

    Args:
        params: Fresh parameters.
        tx: The optimizer.
        with_average: Whether a moving average of the parameters is kept.
    """
    average = jax.tree.map(jnp.copy, params) if with_average else None
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), average)


def make_train_step(
    loss_function: LossFunction,
    tx: optax.GradientTransformation,
    prepare: Preparation,
    ema_decay: float = 0.0,
    num_parts: int = 1,
    skip_nonfinite: bool = False,
) -> TrainStep:
    """The step of a model, an objective and an optimizer.

    Args:
        loss_function: `(params, x, key, step, label) -> (surrogate, terms per image)`.
        tx: The optimizer.
        prepare: `(images, key) -> x`: scaling and binarization.
        ema_decay: Decay of the average of the parameters; 0 where none is kept.
        num_parts: Parts of a batch that are worked off one after the other, to need less memory. Part m has every
            `num_parts`-th image from the m-th on, and noise of its own key `fold_in(key, m)`. For surrogates that are
            means over images the gradient is that of the whole batch.
        skip_nonfinite: Whether a step after which the loss or a parameter isn't finite changes nothing but the number
            of steps. Metrics then have `skipped` too, 1 for such a step, and 0 in place of what isn't finite.

    Returns:
        `train_step(state, batch, key, label=None) -> (state, metrics)`, pure and jit-compiled. `batch` is what
        `prepare` takes, mostly `uint8[B, H, W, C]`, `label` `int32[B]` for a conditional model. `key` is the key of
        the run, from which the step derives its own by stream and `state.step`. The metrics are means over the
        images of the batch, before the update: `loss`, and the terms of the bound in nats, None where there is none.
    """
    gradient_of = _in_parts(loss_function, num_parts) if num_parts > 1 else _in_one(loss_function)

    @jax.jit
    def train_step(
        state: TrainState, batch: StoredImages, key: RandomKey, label: Label = None
    ) -> tuple[TrainState, Metrics]:
        x = prepare(batch, stream_key(key, Stream.BINARIZATION, state.step))
        noise_key = stream_key(key, Stream.POSTERIOR_NOISE, state.step)
        metrics, gradients = gradient_of(state.params, x, noise_key, state.step, label)
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            average = optax.incremental_update(params, average, 1.0 - ema_decay)
        after = TrainState(state.step + 1, params, opt_state, average)
        return _unless_finite(after, state, metrics) if skip_nonfinite else (after, metrics)

    return train_step


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether no number in a tree is infinite or not a number."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) if leaves else jnp.array(True)


def _unless_finite(after: TrainState, before: TrainState, metrics: Metrics) -> tuple[TrainState, Metrics]:
    """A step, or where anything in it isn't finite the state from before it, one step on."""
    finite = all_finite((after, metrics))
    new, old = ((each.params, each.opt_state, each.average) for each in (after, before))
    state = TrainState(after.step, *jax.tree.map(functools.partial(jnp.where, finite), new, old))
    sound = {name: None if value is None else jnp.where(finite, value, 0.0) for name, value in metrics.items()}
    return state, {**sound, "skipped": 1.0 - finite.astype(jnp.float32)}


def replicate(train_step: TrainStep, unroll: bool = False) -> TrainStep:
    """The step of many replicas at once, each with parameters, batch, key and labels of its own.

    Args:
        train_step: From `make_train_step`.
        unroll: Whether the program has the replicas' steps one after the other, instead of one `vmap`, whose batched
            convolutions are about four times slower on CPUs.

    Returns:
        The same function of a state, batches `[R, B, H, W, C]`, keys `[R]` and labels `[R, B]` with an axis for the
        replicas in front; all have taken the same number of steps.
    """

    def replicated_step(
        state: TrainState,
        batch: UInt8[Array, "r b h w c"],
        key: Key[Array, "r"],
        label: Int[Array, "r b"] | None = None,
    ) -> tuple[TrainState, Metrics]:
        if not unroll:
            over_replicas = jax.vmap(train_step, in_axes=(REPLICA_AXES, 0, 0, 0), out_axes=(REPLICA_AXES, 0))
            return over_replicas(state, batch, key, label)
        done = [
            train_step(replica_of(state, index), batch[index], key[index], None if label is None else label[index])
            for index in range(batch.shape[0])
        ]
        together, metrics = jax.tree.map(lambda *leaves: jnp.stack(leaves), *done)
        return together.replace(step=done[0][0].step), metrics

    return replicated_step


def replica_of(state: TrainState, index: int) -> TrainState:
    """One replica's state, as that of a run by itself."""
    one = jax.tree.map(lambda leaf: leaf[index], (state.params, state.opt_state, state.average))
    return TrainState(state.step, *one)


def _in_one(loss_function: LossFunction) -> Callable[..., tuple[Metrics, Params]]:
    def gradient_of(params: Params, x: ImageBatch, key: RandomKey, step: Count, label: Label) -> tuple[Metrics, Params]:
        (loss, terms), gradients = jax.value_and_grad(loss_function, has_aux=True)(params, x, key, step, label)
        return {"loss": loss, **jax.tree.map(jnp.mean, terms._asdict())}, gradients

    return gradient_of


def _in_parts(loss_function: LossFunction, num_parts: int) -> Callable[..., tuple[Metrics, Params]]:
    whole = _in_one(loss_function)

    def gradient_of(params: Params, x: ImageBatch, key: RandomKey, step: Count, label: Label) -> tuple[Metrics, Params]:
        def divided(array: Array) -> Array:
            # Images are dealt out in turn, so that each device keeps those that it has.
            return jnp.swapaxes(array.reshape(-1, num_parts, *array.shape[1:]), 0, 1)

        def of_part(part: tuple[Array, Array, Label]) -> tuple[Metrics, Params]:
            index, images, labels = part
            return whole(params, images, jax.random.fold_in(key, index), step, labels)

        parts = jnp.arange(num_parts), divided(x), None if label is None else divided(label)
        shapes = jax.eval_shape(lambda: of_part(jax.tree.map(lambda leaf: leaf[0], parts)))
        zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
        sums, _ = jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, of_part(part)), None), zeros, parts)
        return jax.tree.map(lambda total: total / num_parts, sums)

    return gradient_of
