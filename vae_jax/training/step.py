"""One training step as a pure function, and many of them in one compiled call."""

import typing
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, UInt8

from vae_jax.keys import Stream, stream_key
from vae_jax.objectives import ElboTerms
from vae_jax.sharding import replicated, split_batch
from vae_jax.vae import Label, Params

LossFunction = Callable[..., tuple[Float[Array, ""], ElboTerms]]
Preparation = Callable[[UInt8[Array, "b h w c"], Key[Array, ""]], Float[Array, "b h w c"]]
Metrics = dict[str, Float[Array, ""] | None]


# A tree may hold anything while it is mapped over (None, strings, shapes), so its fields aren't checked.
@typing.no_type_check
@flax.struct.dataclass
class TrainState:
    """Everything that a checkpoint holds; no key and no position in the data: both follow from `step`.

    Attributes:
        step: Steps taken.
        params: Parameters of the model.
        opt_state: State of the optimizer.
        average: Exponential moving average of the parameters, or None.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any
    average: Params | None

    @property
    def evaluated_params(self) -> Params:
        """What is evaluated and sampled from: the average where one is kept."""
        return self.params if self.average is None else self.average


# (state, batch, key, label=None) -> (state, metrics)
TrainStep = Callable[..., tuple[TrainState, Metrics]]


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
) -> TrainStep:
    """The step of a model, an objective and an optimizer.

    Args:
        loss_function: `(params, x, key, step, label) -> (surrogate, terms per image)`.
        tx: The optimizer.
        prepare: `(images, key) -> x`: scaling and binarization.
        ema_decay: Decay of the average of the parameters; 0 where none is kept.

    Returns:
        `train_step(state, batch, key, label=None) -> (state, metrics)`, pure and jit-compiled. `batch` is
        `uint8[B, H, W, C]`, `label` `int32[B]` for a conditional model. `key` is the key of the run, from
        which the step derives its own by stream and `state.step`. The metrics are means over the images of
        the batch, before the update: `loss`, and the terms of the bound in nats, None where there is none.
    """

    @jax.jit
    def train_step(
        state: TrainState, batch: UInt8[Array, "b h w c"], key: Key[Array, ""], label: Label = None
    ) -> tuple[TrainState, Metrics]:
        x = prepare(batch, stream_key(key, Stream.BINARIZATION, state.step))
        noise_key = stream_key(key, Stream.POSTERIOR_NOISE, state.step)
        (loss, terms), gradients = jax.value_and_grad(loss_function, has_aux=True)(
            state.params, x, noise_key, state.step, label
        )
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            average = optax.incremental_update(params, average, 1.0 - ema_decay)
        metrics = {"loss": loss, **jax.tree.map(jnp.mean, terms._asdict())}
        return TrainState(state.step + 1, params, opt_state, average), metrics

    return train_step


def make_run_steps(
    train_step: TrainStep,
    mesh: Mesh,
    in_one_call: bool = True,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Many steps on data that lives on the device, in one compiled call or in one each.

    The number of steps is a traced bound, so that one compilation serves chunks of every length, and the
    bits don't depend on how steps are divided into chunks.

    Args:
        train_step: From `make_train_step`.
        mesh: Its devices share each batch.
        in_one_call: Whether a compiled loop makes the steps, which spares the host all work between them. The
            gradients of convolutions are some 25 times slower inside such a loop on CPUs (docs/results.md), where
            a call for each step costs next to nothing.

    Returns:
        `run_steps(state, images, labels, order, num_steps, key) -> (state, metrics)` with `order` of `int32[S, B]`:
        which images make up each batch, of which the first `num_steps` rows are used. The state is
        donated. The metrics are means over the steps.
    """
    same, split = replicated(mesh), split_batch(mesh)

    def one_step(
        carry: tuple[TrainState, Metrics],
        images: UInt8[Array, "n h w c"],
        labels: Int[Array, "n"] | None,
        indices: Int[Array, "b"],
        key: Key[Array, ""],
    ) -> tuple[TrainState, Metrics]:
        state, sums = carry
        # CPUs gather whole rows several times faster than images of three axes.
        rows = images.reshape(images.shape[0], -1)
        batch = jax.lax.with_sharding_constraint(rows[indices].reshape(-1, *images.shape[1:]), split)
        state, metrics = train_step(state, batch, key, None if labels is None else labels[indices])
        return state, jax.tree.map(jnp.add, sums, metrics)

    def no_sums(
        state: TrainState,
        images: UInt8[Array, "n h w c"],
        labels: Int[Array, "n"] | None,
        indices: Int[Array, "b"],
        key: Key[Array, ""],
    ) -> Metrics:
        label = None if labels is None else labels[indices]
        shapes = jax.eval_shape(lambda: train_step(state, images[indices], key, label)[1])
        return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)

    def run_steps(
        state: TrainState,
        images: UInt8[Array, "n h w c"],
        labels: Int[Array, "n"] | None,
        order: Int[Array, "s b"],
        num_steps: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[TrainState, Metrics]:
        def body(i: Int[Array, ""], carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            return one_step(carry, images, labels, order[i], key)

        zeros = no_sums(state, images, labels, order[0], key)
        state, sums = jax.lax.fori_loop(0, num_steps, body, (state, zeros))
        return state, jax.tree.map(lambda total: total / num_steps, sums)

    if in_one_call:
        return jax.jit(
            run_steps,
            donate_argnums=0,
            in_shardings=(same, same, same, split_batch(mesh, axis=1), same, same),
            out_shardings=(same, same),
        )
    compiled = jax.jit(
        one_step, donate_argnums=0, in_shardings=((same, same), same, same, split, same), out_shardings=(same, same)
    )

    def call_steps(
        state: TrainState,
        images: UInt8[Array, "n h w c"],
        labels: Int[Array, "n"] | None,
        order: Int[np.ndarray, "s b"],
        num_steps: Int[Array, ""],
        key: Key[Array, ""],
    ) -> tuple[TrainState, Metrics]:
        batches = jax.device_put(list(order[: int(num_steps)]), split)
        carry = state, jax.device_put(no_sums(state, images, labels, batches[0], key), same)
        for indices in batches:
            carry = compiled(carry, images, labels, indices, key)
        state, sums = carry
        return state, jax.tree.map(lambda total: total / num_steps, sums)

    return call_steps
