"""What feeds training steps: data that lives on the devices, or batches that stream in from files.

Both give the same batches for the same seeds and step. Both are called as `(state, first_step, num_steps) -> (state,
list of metrics)`, each metric a mean over equally many of the steps, and donate the state.
"""

import abc
import collections
import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key, Shaped

from vae_jax.data.dataset import Given
from vae_jax.data.order import batch_indices
from vae_jax.shapes import Count
from vae_jax.sharding import put, replicated, split_batch
from vae_jax.training.step import Metrics, TrainState, TrainStep


@dataclasses.dataclass(frozen=True)
class BatchOrder:
    """Which images make up the batch of each step; a function of the seeds and the step alone.

    Attributes:
        seeds: Of the run; several where replicas train at once, each with an order of its own.
        batch_size: Images per step, of each replica.
        num_images: Training images.
    """

    seeds: tuple[int, ...]
    batch_size: int
    num_images: int

    @property
    def has_replicas(self) -> bool:
        """Whether batches have an axis for replicas in front."""
        return len(self.seeds) > 1

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """`[B]`, or `[R, B]` with replicas."""
        return (len(self.seeds), self.batch_size) if self.has_replicas else (self.batch_size,)

    def indices(self, steps: Int[np.ndarray | Array, "s"]) -> Int[np.ndarray | Array, "s *replicas b"]:
        """The images of the batches of some steps, on the host or inside a compiled program."""
        seeds = np.asarray(self.seeds, np.uint32)
        indices = batch_indices(seeds, steps.astype(np.uint32), self.batch_size, self.num_images)
        return indices if self.has_replicas else indices[:, 0]

    def key(self) -> Key[Array, "*replicas"]:
        """The key of the run, or one of each replica."""
        keys = [jax.random.key(seed) for seed in self.seeds]
        return jnp.stack(keys) if self.has_replicas else keys[0]

    def batch_sharding(self, mesh: Mesh, leading_axes: int = 0) -> jax.sharding.NamedSharding:
        """Where batches go; with further axes in front of them."""
        return split_batch(mesh, leading_axes + len(self.batch_shape) - 1)


# Calls that the host may have given to the devices before the oldest of them is done. Each batch that it puts there
# takes memory, and a run that is to stop would first have to finish all steps given.
_CALLS_AHEAD = 2


class Steps(abc.ABC):
    """One compiled program that takes steps, and the data that it is called with.

    Args:
        program: `(state, key, *data) -> (state, metrics)`.
        mesh: Its devices share each batch.
        order: Of the batches.
        data: Arrays of the shapes of `data`; None where there is nothing.
        places: Where each of them belongs.
        steps_per_call: The most steps that a call of the program makes.
    """

    def __init__(
        self, program: Any, mesh: Mesh, order: BatchOrder, data: list[Any], places: list[Any], steps_per_call: int
    ) -> None:
        self._mesh, self._order, self._shapes, self.steps_per_call = mesh, order, data, steps_per_call
        same = replicated(mesh)
        self._call: Any = jax.jit(program, donate_argnums=0, in_shardings=(same, same, *places), out_shardings=same)
        self._running: collections.deque[Metrics] = collections.deque()

    def compile(self, state: TrainState) -> jax.stages.Compiled:
        """Compiles for a state of these shapes, with nothing put on the devices yet.

        Returns:
            What is called from now on; it can be asked for the memory that it takes.
        """
        self._call = self._call.lower(state, jax.eval_shape(self._order.key), *self._shapes).compile()
        return self._call

    def __call__(self, state: TrainState, first_step: int, num_steps: int) -> tuple[TrainState, list[Metrics]]:
        """The state after `num_steps` more."""
        found = []
        for data in self._data(first_step, num_steps):
            state, metrics = self._call(state, self._key, *data)
            found.append(metrics)
            self._running.append(metrics)
            if len(self._running) > _CALLS_AHEAD:
                jax.block_until_ready(self._running.popleft())
        return state, found

    @abc.abstractmethod
    def _data(self, first_step: int, num_steps: int) -> Iterable[Any]:
        """The data of each call, on the devices."""

    @functools.cached_property
    def _key(self) -> Key[Array, "*replicas"]:
        return jax.jit(self._order.key, out_shardings=replicated(self._mesh))()


class ResidentSteps(Steps):
    """Steps on data that lives on the devices, many in one compiled call or each in one.

    The number of steps is a traced bound, so that one compilation serves chunks of every length, and the
    bits don't depend on how steps are divided into chunks.

    Args:
        train_step: From `make_train_step`, or from `replicate` where the order has replicas.
        mesh: Its devices share each batch.
        images: Training images, on the host.
        given: Class or context of each, for a conditional model.
        order: Of the batches.
        longest: The most steps that are asked for at once.
        unroll: Whether each step is a call of its own, instead of many in one compiled loop, which spares the host
            all work between them. Gradients of convolutions are about 25 times slower inside such a loop on CPUs
            (docs/results.md), where a call costs next to nothing.
    """

    def __init__(
        self,
        train_step: TrainStep,
        mesh: Mesh,
        images: Shaped[np.ndarray, "n *event"],
        given: Given,
        order: BatchOrder,
        longest: int,
        unroll: bool = False,
    ) -> None:
        rows, image_shape = images.reshape(len(images), -1), images.shape[1:]
        same, split = replicated(mesh), order.batch_sharding(mesh)
        steps_per_call = 1 if unroll else longest

        def indices(state: TrainState) -> Int[Array, "s *replicas b"]:
            indices = order.indices(state.step + jnp.arange(steps_per_call))
            return jax.lax.with_sharding_constraint(indices, order.batch_sharding(mesh, 1))

        def step(state: TrainState, rows: Array, given: Any, indices: Array, key: Array) -> Any:
            # CPUs gather whole rows several times faster than images of three axes.
            batch = jax.lax.with_sharding_constraint(rows[indices].reshape(*indices.shape, *image_shape), split)
            return train_step(state, batch, key, None if given is None else given[indices])

        def single_step(state: TrainState, key: Array, rows: Array, given: Any) -> Any:
            return step(state, rows, given, indices(state)[0], key)

        def many_steps(state: TrainState, key: Array, rows: Array, given: Any, num_steps: Array) -> Any:
            batches = indices(state)

            def body(i: Count, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
                state, metrics = step(carry[0], rows, given, batches[i], key)
                return state, jax.tree.map(jnp.add, carry[1], metrics)

            shapes = jax.eval_shape(lambda: step(state, rows, given, batches[0], key)[1])
            zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
            state, sums = jax.lax.fori_loop(0, num_steps, body, (state, zeros))
            return state, jax.tree.map(lambda total: total / num_steps, sums)

        # A TPU would choose a layout by column, and then copy all rows into another one at every step.
        data, places = [rows, given], [Format(Layout((0, 1)), same), same]
        self._on_devices = functools.cache(lambda: tuple(map(put, data, places)))
        if unroll:
            super().__init__(single_step, mesh, order, data, places, steps_per_call)
        else:
            super().__init__(many_steps, mesh, order, [*data, np.int32(0)], [*places, same], steps_per_call)
        self._unroll = unroll

    def _data(self, first_step: int, num_steps: int) -> Iterable[Any]:
        if self._unroll:
            return [self._on_devices()] * num_steps
        return [(*self._on_devices(), put(np.int32(num_steps), replicated(self._mesh)))]
