"""Times of the parts of training, each by itself and synchronised with the devices.

A timer is a function that does its work once and returns the seconds that it took (of a unit that it says); `in_turns`
lets several of them take turns, so that noise of the machine falls on all.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from vae_jax.performance.products import Product, repeated, repetitions
from vae_jax.sharding import put, replicated
from vae_jax.training import BatchOrder, ResidentSteps, StreamedSteps, TrainState

Timer = Callable[[], float]

_COMPILATION = "/jax/core/compile/backend_compile_duration"
_PRODUCT_SECONDS = 0.02
_OPTIMIZER_PASSES = 50


class Spread(NamedTuple):
    """Several measurements of the same.

    Attributes:
        median: Of them.
        minimum: The lowest.
        maximum: The highest.
    """

    median: float
    minimum: float
    maximum: float


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """Median and range of measurements."""
    return Spread(float(np.median(values)), float(np.min(values)), float(np.max(values)))


def in_turns(timers: Mapping[str, Timer], repeats: int) -> dict[str, list[float]]:
    """Lets timers take turns.

    Args:
        timers: By name.
        repeats: How often each is measured, after a first time that doesn't count (it compiles and warms up).

    Returns:
        What each measured, turn by turn.
    """
    found: dict[str, list[float]] = {name: [] for name in timers}
    for turn in range(repeats + 1):
        for name, timer in timers.items():
            seconds = timer()
            if turn:
                found[name].append(seconds)
    return found


def compile_seconds(
    steps: ResidentSteps | StreamedSteps, state: TrainState
) -> tuple[jax.stages.Compiled, float, float]:
    """Compiles steps.

    Args:
        steps: Not compiled yet.
        state: Shapes and types.

    Returns:
        What was compiled, the seconds that tracing and lowering took, and those of the compiler.
    """
    compiling = 0.0

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        nonlocal compiling
        compiling += duration_secs if event == _COMPILATION else 0.0

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        began = time.perf_counter()
        compiled = steps.compile(state)
        seconds = time.perf_counter() - began
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return compiled, seconds - compiling, compiling


class StepTimers:
    """Timers of the steps of a run, which go on from one to the next.

    Args:
        steps: The steps, compiled.
        state: Where they start; donated.
        num_steps: Steps that are timed at once.
        longest: The most steps per call.

    Attributes:
        num_steps: As given; may be changed.
        shares_waited: Of the time of each `step`, what went by waiting for images from files.
    """

    def __init__(self, steps: ResidentSteps | StreamedSteps, state: TrainState, num_steps: int, longest: int) -> None:
        self._steps, self._state, self._step = steps, state, int(state.step)
        self.num_steps, self._longest = num_steps, longest
        self.shares_waited: list[float] = []

    def step(self) -> float:
        """Seconds a step, many at a time, as in training: a call is given before the one before it is done."""
        waiting = self._seconds_waited
        began, done = time.perf_counter(), 0
        while done < self.num_steps:
            now = min(self._longest, self.num_steps - done)
            metrics = self._go_on(now)
            done += now
        jax.block_until_ready((self._state, metrics))
        seconds = time.perf_counter() - began
        self.shares_waited.append((self._seconds_waited - waiting) / seconds)
        return seconds / self.num_steps

    def host(self, num_steps: int) -> float:
        """Seconds a call of so many steps keeps the host, which has nothing else to do then: what it prepares and
        gives to the devices. Waiting for images from files doesn't count."""
        jax.block_until_ready(self._state)
        waiting, began = self._seconds_waited, time.perf_counter()
        self._go_on(num_steps)
        seconds = time.perf_counter() - began - (self._seconds_waited - waiting)
        jax.block_until_ready(self._state)
        return seconds

    @property
    def state(self) -> TrainState:
        """After the last step; gone once the next one is timed."""
        return self._state

    def _go_on(self, num_steps: int) -> Any:
        self._state, metrics = self._steps(self._state, self._step, num_steps)
        self._step += num_steps
        return metrics

    @property
    def _seconds_waited(self) -> float:
        return self._steps.seconds_waited if isinstance(self._steps, StreamedSteps) else 0.0


def large_product_timer(mesh: Mesh, size: int, times: int) -> Timer:
    """Times one large float32 product, on each device of the mesh at once; the unit is that product.

    Args:
        mesh: The devices.
        size: Rows and columns.
        times: Products that are timed at once.
    """
    matrix = jax.ShapeDtypeStruct((size, size), jnp.float32)
    primitive = jax.make_jaxpr(jnp.matmul)(matrix, matrix).eqns[0]
    product = Product(primitive.primitive, dict(primitive.params), (matrix, matrix), matrix, 2 * size**3, 1)
    return product_timer(product, mesh, times, in_one_call=True)


def product_timer(product: Product, mesh: Mesh, times: int, in_one_call: bool) -> Timer:
    """Times a product; the unit is one of it. See `products.repeated` for the arguments."""
    run = repeated(product, mesh, times, in_one_call)

    def timer() -> float:
        return _seconds(run) / times

    return timer


def products_timers(
    products: list[Product], mesh: Mesh, flops_per_second: float, in_one_call: bool
) -> dict[str, Timer]:
    """A timer for each kind of product, alone, by its text.

    Args:
        products: Of one device.
        mesh: All its devices work at once.
        flops_per_second: Of one device where it is fast; decides how often a product is repeated.
        in_one_call: Whether the steps are made in one call, so that these are too.
    """
    return {
        f"{index}: {product}": product_timer(
            product, mesh, repetitions(product, flops_per_second, _PRODUCT_SECONDS), in_one_call
        )
        for index, product in enumerate(products)
    }


def optimizer_timer(tx: optax.GradientTransformation, state: TrainState, has_replicas: bool, mesh: Mesh) -> Timer:
    """Times one pass of an optimizer: from gradients to new parameters, on each device.

    Args:
        tx: The optimizer.
        state: Parameters and state of the optimizer; they are copied.
        has_replicas: Whether they have an axis for replicas in front.
        mesh: The devices.
    """

    def update(gradients: Any, params: Any, opt_state: Any) -> tuple[Any, Any]:
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    each = jax.vmap(update) if has_replicas else update

    def passes(gradients: Any, params: Any, opt_state: Any) -> tuple[Any, Any, Any]:
        def body(_: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            gradients, params, opt_state = carry
            params, opt_state = each(gradients, params, opt_state)
            # A gradient that never changed would be squared once, before the loop.
            gradients = jax.tree.map(lambda leaf, new: leaf.at[(0,) * leaf.ndim].set(new.ravel()[0]), gradients, params)
            return gradients, params, opt_state

        return jax.lax.fori_loop(0, _OPTIMIZER_PASSES, body, (gradients, params, opt_state))

    same = replicated(mesh)
    call = jax.jit(passes, donate_argnums=(0, 1, 2), in_shardings=same, out_shardings=same)
    small = jax.tree.map(lambda leaf: 1e-3 * jnp.ones_like(leaf), state.params)
    carry = put(jax.tree.map(jnp.copy, (small, state.params, state.opt_state)), same)

    def timer() -> float:
        nonlocal carry

        def run() -> Any:
            nonlocal carry
            carry = call(*carry)
            return carry

        return _seconds(run) / _OPTIMIZER_PASSES

    return timer


def gather_timer(images: np.ndarray, order: BatchOrder, mesh: Mesh, num_steps: int) -> Timer:
    """Times the gathering of a batch from images that live on the devices; the unit is a batch.

    Args:
        images: `uint8[N, H, W, C]`, on the host.
        order: Which images make up a batch.
        mesh: The devices.
        num_steps: Batches that are gathered at once.
    """
    split, same = order.batch_sharding(mesh), replicated(mesh)
    on_devices = put(images, same)
    indices = put(order.indices(np.arange(num_steps)), order.batch_sharding(mesh, 1))

    @jax.jit
    def gather(images: jax.Array, indices: jax.Array) -> jax.Array:
        def body(index: jax.Array, before: jax.Array) -> jax.Array:
            rows = images.reshape(images.shape[0], -1)[indices[index]]
            return jax.lax.with_sharding_constraint(rows, split)

        nothing = jnp.zeros((*order.batch_shape, images[0].size), images.dtype)
        return jax.lax.fori_loop(0, num_steps, body, jax.lax.with_sharding_constraint(nothing, split))

    return lambda: _seconds(lambda: gather(on_devices, indices)) / num_steps


def reading_timer(batches: Iterator[Any], num_steps: int) -> Timer:
    """Times the reading of batches from files, with nothing else to do meanwhile; the unit is a batch.

    Args:
        batches: From `streamed_batches`.
        num_steps: Batches that are read at once.
    """

    def timer() -> float:
        began = time.perf_counter()
        for _ in range(num_steps):
            next(batches)
        return (time.perf_counter() - began) / num_steps

    return timer


def _seconds(work: Callable[[], Any]) -> float:
    """Seconds until the result of some work is there."""
    began = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - began
