"""Training steps on batches that are read from files while the devices work."""

import time
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from vae_jax.data.batches import BatchReader, streamed_batches
from vae_jax.data.dataset import Given
from vae_jax.data.streamed import StreamedImages
from vae_jax.sharding import own_columns, put_own, replicated
from vae_jax.training.feeding import BatchOrder, StepsAhead, key_on
from vae_jax.training.step import Metrics, TrainState, TrainStep


class StreamedSteps:
    """Steps on batches that are read from files while the devices work.

    Args:
        train_step: As for `ResidentSteps`.
        mesh: As there; each process reads the part of a batch that its devices have.
        images: Training images, in their files.
        given: Class or context of each, for a conditional model.
        order: Of the batches.
        last_step: Where the run ends: no batch beyond it is read.
        num_workers: Processes that decode; 0 for threads.
        prefetch: Batches that each of them is ahead.
    """

    def __init__(
        self,
        train_step: TrainStep,
        mesh: Mesh,
        images: StreamedImages,
        given: Given,
        order: BatchOrder,
        last_step: int,
        num_workers: int,
        prefetch: int,
    ) -> None:
        self._mesh, self._order, self._image_shape = mesh, order, images.shape[1:]
        self._stored, self._given = images, given
        reader = BatchReader(images, given, order.seeds, order.batch_size, own_columns(mesh, order.batch_size))
        self._read = lambda first: streamed_batches(reader, first, last_step, num_workers, prefetch)
        same, split = replicated(mesh), order.batch_sharding(mesh)
        self._call: Any = jax.jit(
            lambda state, batch, key, given: train_step(state, batch, key, given),
            donate_argnums=0,
            in_shardings=(same, split, same, split),
            out_shardings=same,
        )
        self._batches: Iterator[Any] | None = None
        self._next_step = -1
        self._running = StepsAhead()
        self.seconds_waited = 0.0

    @property
    def steps_per_call(self) -> int:
        """As `ResidentSteps.steps_per_call`."""
        return 1

    def compile(self, state: TrainState) -> jax.stages.Compiled:
        """As `ResidentSteps.compile`."""
        same, split = replicated(self._mesh), self._order.batch_sharding(self._mesh)
        shape = self._order.batch_shape
        batch = jax.ShapeDtypeStruct((*shape, *self._image_shape), self._stored.dtype, sharding=split)
        given = None
        if self._given is not None:
            given = jax.ShapeDtypeStruct((*shape, *self._given.shape[1:]), self._given.dtype, sharding=split)
        state, key = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=same),
            (state, jax.eval_shape(self._order.key)),
        )
        self._call = self._call.lower(state, batch, key, given).compile()
        return self._call

    def __call__(self, state: TrainState, first_step: int, num_steps: int) -> tuple[TrainState, list[Metrics]]:
        """The state after `num_steps` more; where they follow the ones before, reading just goes on."""
        if self._batches is None or first_step != self._next_step:
            self._batches = self._put_ahead(self._read(first_step))
        self._next_step = first_step + num_steps
        found = []
        for _ in range(num_steps):
            batch, given = next(self._batches)
            state, metrics = self._call(state, batch, key_on(self._order, self._mesh), given)
            found.append(metrics)
            self._running.add(metrics)
        return state, found

    def _put_ahead(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches on the devices, one ahead of the one that is asked for; counts the time spent waiting."""
        split = self._order.batch_sharding(self._mesh)

        def following() -> Any:
            began = time.perf_counter()
            batch = next(batches, None)
            self.seconds_waited += time.perf_counter() - began
            if batch is None:
                return None
            stored, given = batch
            if not self._order.has_replicas:
                stored, given = stored[0], None if given is None else given[0]
            return put_own((stored, given), split)

        ahead = following()
        while ahead is not None:
            current, ahead = ahead, following()
            yield current
