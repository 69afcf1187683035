"""Compiled functions of a design, which estimators that agree in it share; and how rows go through them."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vae_jax.build import build_loss, build_optimizer, must_unroll
from vae_jax.config import Config
from vae_jax.data import epoch_order
from vae_jax.errors import UserError
from vae_jax.estimation.design import KEPT, Design, ModelKey, model_of
from vae_jax.evaluation import make_importance_estimate, samples_at_once
from vae_jax.keys import Stream, stream_key
from vae_jax.training import TrainState, create_state, make_train_step
from vae_jax.vae import Params, apply, init_params

# Always so many rows in a call, so that the bits of a row depend on no others, and one program serves all.
ROWS_AT_ONCE = 128


# What goes to the device for one call, in numbers and in steps.
_NUMBERS_IN_CHUNK, _STEPS_IN_CHUNK = 2**22, 256


class Training(NamedTuple):
    """Compiled functions that train.

    Attributes:
        initial: `(seed) -> state`.
        steps: `(state, rows [S, B, P], how many of the S, seed, learning rate) -> (state, loss of each step)`.
    """

    initial: Callable[..., TrainState]
    steps: Callable[..., tuple[TrainState, Float[Array, "s"]]]


class Measures(NamedTuple):
    """Compiled functions of a model's parameters: of rows, of latents, and of (seed, number of the batch)."""

    encode: Callable[..., Float[Array, "b d"]]
    decode: Callable[..., Float[Array, "b p"]]
    draw: Callable[..., Float[Array, "b p"]]


@functools.lru_cache(maxsize=KEPT)
def state_shapes(design: Design) -> TrainState:
    return jax.eval_shape(training_programs(design, 1, 1, 0).initial, np.uint32(0))


@functools.lru_cache(maxsize=KEPT)
def training_programs(design: Design, num_steps: int, steps_per_epoch: int, num_rows: int) -> Training:
    model, train = design.model, design.config.train
    loss_function = build_loss(design.config, model, num_rows)

    def optimizer(learning_rate: Any) -> Any:
        return build_optimizer(design.config, num_steps, steps_per_epoch, learning_rate)

    @jax.jit
    def initial(seed: Any) -> TrainState:
        params = init_params(model, stream_key(jax.random.key(seed), Stream.PARAMETERS), design.image_shape)
        return _strongly_typed(create_state(params, optimizer(train.learning_rate), train.ema_decay > 0))

    def step(state: TrainState, rows: Any, seed: Any, learning_rate: Any) -> tuple[TrainState, Any]:
        # The rate is an argument of the program, so the optimizer is made inside it.
        train_step = make_train_step(loss_function, optimizer(learning_rate), lambda x, key: x, train.ema_decay)
        state, metrics = train_step(state, rows.reshape(-1, *design.image_shape), jax.random.key(seed))
        return _strongly_typed(state), metrics["loss"]

    def loop(state: TrainState, chunk: Any, num_steps: Any, seed: Any, learning_rate: Any) -> tuple[TrainState, Any]:
        def body(i: Any, carry: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
            state, loss = step(carry[0], chunk[i], seed, learning_rate)
            return state, carry[1].at[i].set(loss)

        return jax.lax.fori_loop(0, num_steps, body, (state, jnp.zeros(len(chunk))))

    if not must_unroll(model):
        return Training(initial, jax.jit(loop, donate_argnums=0))
    compiled_step = jax.jit(step, donate_argnums=0)

    def one_by_one(state: TrainState, chunk: Any, num_steps: Any, seed: Any, learning_rate: Any) -> Any:
        losses = []
        for rows in chunk[:num_steps]:
            state, loss = compiled_step(state, rows, seed, learning_rate)
            losses.append(loss)
        return state, np.array(losses, np.float32)

    return Training(initial, one_by_one)


def _strongly_typed(state: TrainState) -> TrainState:
    """The same without JAX's weak types, which NumPy doesn't have: for each kind a program would be compiled anew."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)


@functools.lru_cache(maxsize=KEPT)
def measuring_programs(key: ModelKey) -> Measures:
    model = model_of(key)

    def flat(images: Float[Array, "b h w c"]) -> Float[Array, "b p"]:
        return images.reshape(len(images), -1)

    @jax.jit
    def encode(params: Params, rows: Any) -> Any:
        return apply(model, params, "posterior_mean", rows.reshape(-1, *key.image_shape))

    @jax.jit
    def decode(params: Params, z: Any) -> Any:
        return flat(apply(model, params, "decode_mean", z))

    @jax.jit
    def draw(params: Params, seed: Any, number: Any) -> Any:
        root = jax.random.key(seed)
        z = apply(model, params, "sample_prior", stream_key(root, Stream.SAMPLES, 2 * number), ROWS_AT_ONCE)
        return flat(apply(model, params, "decode_sample", z, stream_key(root, Stream.SAMPLES, 2 * number + 1)))

    return Measures(encode, decode, draw)


@functools.lru_cache(maxsize=KEPT)
def importance_program(key: ModelKey, num_samples: int) -> Callable[..., Float[Array, "b"]]:
    model = model_of(key)
    at_once = samples_at_once(model, key.image_shape, ROWS_AT_ONCE, Config().evaluate.memory_mb)
    estimate = make_importance_estimate(model, num_samples, min(num_samples, at_once))

    @jax.jit
    def log_likelihood(params: Params, rows: Any, ids: Any, seed: Any) -> Any:
        noise_key = stream_key(jax.random.key(seed), Stream.EVALUATION)
        return estimate(params, rows.reshape(-1, *key.image_shape), ids, noise_key).log_likelihood

    return log_likelihood


def run_steps(
    training: Training,
    state: TrainState,
    rows: Float[np.ndarray, "n p"],
    order: Iterator[Int[np.ndarray, "b"]],
    seed: np.uint32,
    learning_rate: np.float32,
) -> tuple[TrainState, Float[np.ndarray, "s"]]:
    """Trains on one batch after the other; one that isn't finite ends it."""
    found: list[np.ndarray] = []

    def read(losses: Any, count: int) -> None:
        # While the device is busy with the next chunk already, but not with more: each takes memory.
        found.append(np.asarray(losses)[:count])
        if not np.isfinite(found[-1]).all():
            raise UserError(
                "the loss is no finite number any more; scale X first, e.g. by StandardScaler, or lower learning_rate"
            )

    waiting = None
    for chunk, count in _chunks(rows, order):
        state, losses = training.steps(state, chunk, np.int32(count), seed, learning_rate)
        if waiting is not None:
            read(*waiting)
        waiting = losses, count
    if waiting is not None:
        read(*waiting)
    return state, np.concatenate(found)


def _chunks(
    rows: Float[np.ndarray, "n p"], order: Iterator[Int[np.ndarray, "b"]]
) -> Iterator[tuple[Float[np.ndarray, "s b p"], int]]:
    """Consecutive batches in arrays of one size, and how many there are in each."""
    while True:
        first = next(order, None)
        if first is None:
            return
        longest = min(_STEPS_IN_CHUNK, max(1, _NUMBERS_IN_CHUNK // (len(first) * rows.shape[1])))
        indices = np.stack([first, *itertools.islice(order, longest - 1)])
        chunk = np.zeros((longest, len(first), rows.shape[1]), np.float32)
        chunk[: len(indices)] = rows[indices]
        yield chunk, len(indices)


def batch_order(
    seed: int, first_epoch: int, num_epochs: int, num_rows: int, batch_size: int
) -> Iterator[Int[np.ndarray, "b"]]:
    """Which rows make up each batch: every row once an epoch, and to fill the last batch its first ones again."""
    steps = -(-num_rows // batch_size)
    for epoch in range(first_epoch, first_epoch + num_epochs):
        yield from np.resize(epoch_order(seed, epoch, num_rows), (steps, batch_size))


def by_batches(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    """Applies a compiled function to always equally many rows. The last batch repeats its last one."""
    parts = []
    for start in range(0, len(arrays[0]), ROWS_AT_ONCE):
        indices = np.minimum(np.arange(start, start + ROWS_AT_ONCE), len(arrays[0]) - 1)
        parts.append(np.asarray(function(*(array[indices] for array in arrays))))
    return np.concatenate(parts)[: len(arrays[0])]
