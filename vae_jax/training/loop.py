"""The training loop: dispatches compiled chunks of steps and hands out what happened as events."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, UInt8

from vae_jax.keys import epoch_order
from vae_jax.training.step import Metrics, TrainState


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When things happen, in steps.

    Attributes:
        num_steps: Steps in all.
        steps_per_epoch: `floor(images / batch)`.
        log_every: Steps between rows of metrics.
        checkpoint_every: Steps between checkpoints.
    """

    num_steps: int
    steps_per_epoch: int
    log_every: int
    checkpoint_every: int

    def next_stop(self, step: int) -> int:
        """The next step after `step` at which something is due."""
        every = (self.log_every, self.checkpoint_every)
        return min([self.num_steps, *((step // n + 1) * n for n in every)])

    def checkpoint_due(self, step: int) -> bool:
        """Whether a checkpoint is due once `step` steps are taken."""
        return step % self.checkpoint_every == 0 or step == self.num_steps


class Logged(NamedTuple):
    """Metrics of the steps since the last such event.

    Attributes:
        step: Steps taken at their end.
        epoch: The same in passes over the data.
        metrics: Means over the steps and their images.
        images_per_second: Over these steps.
    """

    step: int
    epoch: float
    metrics: dict[str, float | None]
    images_per_second: float


class CheckpointDue(NamedTuple):
    """A state to keep; it is gone (donated) once the next event is asked for."""

    step: int
    state: TrainState


def batch_indices(
    seed: int, first_step: int, num_steps: int, batch_size: int, num_images: int
) -> Int[np.ndarray, "s b"]:
    """Which images make up the batches of consecutive steps; a function of the step alone.

    Args:
        seed: The seed of the run.
        first_step: Steps taken before.
        num_steps: How many batches, `s`.
        batch_size: Images per batch, `b`.
        num_images: Images there are; those that don't fill a batch are left out of an epoch, others
            each time.
    """
    steps_per_epoch = num_images // batch_size
    rows = []
    for step in range(first_step, first_step + num_steps):
        epoch, row = divmod(step, steps_per_epoch)
        order = _recent_epoch_order(seed, epoch, num_images)
        rows.append(order[row * batch_size : (row + 1) * batch_size])
    return np.stack(rows).astype(np.int32)


_recent_epoch_order = functools.lru_cache(maxsize=2)(epoch_order)


def training_events(
    state: TrainState,
    run_steps: Callable[..., tuple[TrainState, Metrics]],
    images: UInt8[Array, "n h w c"],
    labels: Int[Array, "n"] | None,
    key: Key[Array, ""],
    seed: int,
    batch_size: int,
    schedule: Schedule,
) -> Iterator[Logged | CheckpointDue]:
    """Trains from `state.step` to the end of the schedule.

    Metrics are read one call late, while the device already works on the next chunk; before a
    `CheckpointDue` all of them have been handed out.

    Args:
        state: Where to start; donated.
        run_steps: From `make_run_steps`.
        images: The training images, on the device.
        labels: Their classes, on the device, for a conditional model.
        key: The key of the run.
        seed: The seed of the run, which orders the data.
        batch_size: Images per step.
        schedule: When things happen.

    Yields:
        Events in the order of their steps.
    """
    step = int(state.step)
    # One size for the rows of every chunk, so that all share one compilation.
    longest = min(schedule.log_every, schedule.checkpoint_every, schedule.num_steps)
    unread: tuple[int, int, Metrics] | None = None
    last_read = time.perf_counter()

    def read(first: int, last: int, metrics: Metrics) -> Logged:
        nonlocal last_read
        values = {name: None if value is None else float(value) for name, value in jax.device_get(metrics).items()}
        seconds, last_read = time.perf_counter() - last_read, time.perf_counter()
        rate = (last - first) * batch_size / seconds
        return Logged(last, last / schedule.steps_per_epoch, values, rate)

    while step < schedule.num_steps:
        stop = schedule.next_stop(step)
        order = np.zeros((longest, batch_size), np.int32)
        order[: stop - step] = batch_indices(seed, step, stop - step, batch_size, images.shape[0])
        state, metrics = run_steps(state, images, labels, order, jnp.int32(stop - step), key)
        if unread is not None:
            yield read(*unread)
        unread = (step, stop, metrics)
        if schedule.checkpoint_due(stop):
            yield read(*unread)
            unread = None
            yield CheckpointDue(stop, state)
            last_read = time.perf_counter()
        step = stop
