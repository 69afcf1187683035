"""Compiled functions, which estimators of equal designs share, and how rows go through them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from vae_jax.build import build_loss, build_optimizer, fresh_state, must_unroll
from vae_jax.config import Config, TrainConfig
from vae_jax.data import epoch_order
from vae_jax.errors import UserError
from vae_jax.estimation.parameters import Design
from vae_jax.evaluation import make_importance_estimate, map_images, samples_at_once
from vae_jax.keys import Stream, stream_key
from vae_jax.models import Batch, Model, Variables
from vae_jax.sharding import batch_mesh
from vae_jax.training import TrainState, make_train_step

# Each call has this many rows, so that the bits of a row don't depend on the other rows, and one program serves all.
ROWS_AT_ONCE = 128
# Compiled functions of this many designs are kept.
_KEPT = 64
# One call of the training program takes at most this many numbers and this many steps.
_NUMBERS_IN_CHUNK, _STEPS_IN_CHUNK = 2**22, 256


class Training(NamedTuple):
    """Compiled functions that train.

    Attributes:
        initial: `(seed) -> state`.
        loop: `(state, images [S, B, H, W, C], how many of the S, seed, learning rate) -> (state, loss of each step)`.
        structure: The tree structure of a state.
    """

    initial: Callable[..., TrainState]
    loop: Callable[..., tuple[TrainState, Float[Array, "s"]]]
    structure: Any


@functools.lru_cache(maxsize=_KEPT)
def compiled_training(design: Design, num_steps: int, steps_per_epoch: int, num_rows: int) -> Training:
    """The functions that train a design.

    Args:
        design: What to train.
        num_steps: Steps in all, for a schedule that has an end.
        steps_per_epoch: Steps in an epoch, for the same.
        num_rows: Rows, for an objective that uses their number.
    """
    model, train = design.model, design.config.train
    loss_function = build_loss(design.config, model, num_rows)

    def optimizer(learning_rate: Any) -> Any:
        return build_optimizer(design.config, model, num_steps, steps_per_epoch, learning_rate)

    @jax.jit
    def initial(seed: Any) -> TrainState:
        key = jax.random.key(seed)
        return _strongly_typed(
            fresh_state(design.config, model, design.image_shape, optimizer(train.learning_rate), key)
        )

    def step(state: TrainState, x: Any, seed: Any, learning_rate: Any) -> tuple[TrainState, Any]:
        # The rate is an argument of the program, so the optimizer is made inside it.
        train_step = make_train_step(
            loss_function, optimizer(learning_rate), lambda x, given, key: Batch(x), train.ema_decay
        )
        state, metrics = train_step(state, x, jax.random.key(seed))
        return _strongly_typed(state), metrics["loss"]

    @functools.partial(jax.jit, donate_argnums=0)
    def loop(state: TrainState, chunk: Any, count: Any, seed: Any, learning_rate: Any) -> tuple[TrainState, Any]:
        def body(i: Any, carry: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
            state, loss = step(carry[0], chunk[i], seed, learning_rate)
            return state, carry[1].at[i].set(loss)

        if len(chunk) == 1:
            state, loss = step(state, chunk[0], seed, learning_rate)
            return state, loss[None]
        return jax.lax.fori_loop(0, count, body, (state, jnp.zeros(len(chunk))))

    return Training(initial, loop, jax.tree.structure(jax.eval_shape(initial, np.uint32(0))))


def _strongly_typed(state: TrainState) -> TrainState:
    """The same without JAX's weak types. NumPy doesn't have them, and each type would compile its own program."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)


def trained(
    design: Design,
    train: TrainConfig,
    rows: Float[np.ndarray, "n p"],
    seed: np.uint32,
    epochs_before: int,
    num_epochs: int,
    leaves: list[np.ndarray] | None,
) -> tuple[TrainState, list[float]]:
    """Trains from the start, or from where training stands.

    Args:
        design: What is trained.
        train: Batch size, learning rate and schedule.
        rows: Standardized rows.
        seed: Seed of the run.
        epochs_before: Epochs that were trained before.
        num_epochs: Epochs to train now.
        leaves: Of the state that training stands at; None to start.

    Returns:
        The state on the host, and the mean loss of each epoch.

    Raises:
        UserError: If the loss isn't finite.
    """
    steps_per_epoch = -(-len(rows) // train.batch_size)
    has_end = train.schedule != "constant"
    training = compiled_training(
        design,
        num_steps=steps_per_epoch * num_epochs if has_end else 1,
        steps_per_epoch=steps_per_epoch if has_end else 1,
        num_rows=len(rows) if design.uses_num_rows else 0,
    )
    if leaves is None:
        state = training.initial(seed)
    else:
        # A copy, since the state that goes into a step is used up by it.
        state = jax.tree.unflatten(training.structure, [jnp.array(leaf) for leaf in leaves])
    order = batch_order(int(seed), epochs_before, num_epochs, len(rows), train.batch_size)
    images, batch_size = rows.reshape(-1, *design.image_shape), order.shape[1]
    longest = max(1, min(_STEPS_IN_CHUNK, _NUMBERS_IN_CHUNK // (batch_size * rows.shape[1])))
    if must_unroll(design.model):
        longest = 1
    losses: list[Any] = []
    for start in range(0, len(order), longest):
        batches = order[start : start + longest]
        chunk = np.zeros((longest, batch_size, *design.image_shape), np.float32)
        chunk[: len(batches)] = images[batches]
        state, loss = training.loop(state, chunk, np.int32(len(batches)), seed, np.float32(train.learning_rate))
        losses.append(loss)
        # Of the chunk before this one, so that the device has work meanwhile.
        _check_finite(losses[-2:-1])
    _check_finite(losses[-1:])
    each = np.concatenate(losses)[: len(order)].reshape(num_epochs, steps_per_epoch)
    return jax.tree.map(np.asarray, state), each.mean(axis=1).tolist()


def _check_finite(losses: list[Any]) -> None:
    if not np.isfinite(losses).all():
        raise UserError("the loss isn't finite any more; scale X first, e.g. by StandardScaler, or lower learning_rate")


def batch_order(seed: int, first_epoch: int, num_epochs: int, num_rows: int, batch_size: int) -> Int[np.ndarray, "s b"]:
    """Which rows make up each batch: every row once an epoch. The epoch's first rows fill up its last batch."""
    steps = -(-num_rows // batch_size)
    epochs = range(first_epoch, first_epoch + num_epochs)
    return np.concatenate([np.resize(epoch_order(seed, epoch, num_rows), (steps, batch_size)) for epoch in epochs])


@functools.lru_cache(maxsize=_KEPT)
def compiled(design: Design, function: Callable[..., Array]) -> Callable[..., Array]:
    """A function of a model, `(variables, ...) -> array`: `api.encode`, `api.decode` or `sample_rows`."""
    return jax.jit(functools.partial(function, design.model))


def sample_rows(model: Model, variables: Variables, seed: Any, number: Any) -> Float[Array, "b h w c"]:
    """Images drawn from p(x), as a function of the seed and the number of the batch."""
    key = jax.random.key(seed)
    z = model.sample_prior(variables, stream_key(key, Stream.SAMPLES, 2 * number), ROWS_AT_ONCE)
    return model.decode(variables, z).sample(stream_key(key, Stream.SAMPLES, 2 * number + 1))


@functools.lru_cache(maxsize=_KEPT)
def compiled_log_likelihood(design: Design, num_samples: int) -> Callable[..., Float[Array, "b"]]:
    """`(variables, batch, ids, seed) -> log p(x)`, where the ids and the seed determine the noise."""
    at_once = samples_at_once(design.model, design.image_shape, ROWS_AT_ONCE, Config().evaluate.memory_mb)
    estimate = make_importance_estimate(design.model, num_samples, min(num_samples, at_once))

    @jax.jit
    def log_likelihood(variables: Variables, batch: Any, ids: Any, seed: Any) -> Any:
        return estimate(variables, batch, ids, stream_key(jax.random.key(seed), Stream.EVALUATION)).log_likelihood

    return log_likelihood


def map_rows(function: Callable[[Batch, Array], Array], images: Float32[np.ndarray, "n *event"]) -> np.ndarray:
    """Applies `(batch, row numbers) -> array` to all rows, on one device."""
    return map_images(function, images, 1, ROWS_AT_ONCE, batch_mesh(1))
