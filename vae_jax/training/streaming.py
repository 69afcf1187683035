"""Training steps on batches that are read from files while the devices work."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from vae_jax.data.batches import BatchReader, streamed_batches
from vae_jax.data.dataset import Given
from vae_jax.data.streamed import StreamedImages
from vae_jax.sharding import own_columns, put_own
from vae_jax.training.feeding import BatchOrder, Steps
from vae_jax.training.step import TrainStep


class StreamedSteps(Steps):
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
        batch = jax.ShapeDtypeStruct((*order.batch_shape, *images.shape[1:]), images.dtype)
        told = None if given is None else jax.ShapeDtypeStruct((*order.batch_shape, *given.shape[1:]), given.dtype)
        split = order.batch_sharding(mesh)
        super().__init__(
            lambda state, key, batch, given: train_step(state, batch, key, given),
            mesh,
            order,
            [batch, told],
            [split, split],
            steps_per_call=1,
        )
        reader = BatchReader(images, given, order.seeds, order.batch_size, own_columns(mesh, order.batch_size))
        self._read = lambda first: streamed_batches(reader, first, last_step, num_workers, prefetch)
        self._batches: Iterator[Any] = iter(())
        self._next_step = -1

    def _data(self, first_step: int, num_steps: int) -> Iterator[Any]:
        # Where the steps follow the ones before, reading just goes on.
        if first_step != self._next_step:
            placed = map(self._put, self._read(first_step))
            # The next batch is on its way before one is used.
            self._batches = (batch for batch, _ in itertools.pairwise(itertools.chain(placed, [None])))
        self._next_step = first_step + num_steps
        return itertools.islice(self._batches, num_steps)

    def _put(self, batch: Any) -> Any:
        own = batch if self._order.has_replicas else jax.tree.map(lambda leaf: leaf[0], batch)
        return put_own(own, self._order.batch_sharding(self._mesh))
