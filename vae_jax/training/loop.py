"""The training loop: dispatches compiled chunks of steps and hands out what happened as events."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from vae_jax.training.step import Metrics, TrainState

RunSteps = Callable[[TrainState, int, int], tuple[TrainState, list[Metrics]]]


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

    @property
    def longest(self) -> int:
        """The most steps between two stops."""
        return min(self.log_every, self.checkpoint_every, self.num_steps)

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
        metrics: Means over the steps and their images; an array over the replicas where there are any. Steps that were
            skipped don't count, and `skipped_steps` is their number (see `make_train_step`).
        images_per_second: Over these steps, from the end of the chunk before to their own end.
    """

    step: int
    epoch: float
    metrics: dict[str, Float[np.ndarray, "*replicas"] | None]
    images_per_second: float


class CheckpointDue(NamedTuple):
    """A state to keep; it is gone (donated) once the next event is asked for."""

    step: int
    state: TrainState


class Interrupted(NamedTuple):
    """The last event of a run that was asked to stop where no checkpoint is due: a state to go on from."""

    step: int
    state: TrainState


@dataclasses.dataclass(frozen=True)
class Stopping:
    """How a run learns that it has to stop before its end.

    Attributes:
        asked: Whether it has to; looked at once a chunk, and of several processes all give the same answer.
        asked_within: The same, between the calls that make up a chunk.
        steps_per_call: How many steps that are; None: a chunk is one call.
    """

    asked: Callable[[], bool] = lambda: False
    asked_within: Callable[[], bool] = lambda: False
    steps_per_call: int | None = None


def training_events(
    state: TrainState, run_steps: RunSteps, images_per_step: int, schedule: Schedule, stopping: Stopping = Stopping()
) -> Iterator[Logged | CheckpointDue | Interrupted]:
    """Trains from `state.step` to the end of the schedule.

    The metrics of a chunk are read once the first call of the next one is dispatched, so the devices always have work
    while the host reads. That wait ends when the chunk does, so the clock then gives the chunk's own time. Before a
    `CheckpointDue` all metrics have been handed out.

    Args:
        state: Where to start; donated.
        run_steps: `(state, first_step, num_steps) -> (state, list of metrics)`, from `vae_jax.training.feeding`.
        images_per_step: Over all replicas, for the rate that is reported.
        schedule: When things happen.
        stopping: What may end it before.

    Yields:
        Events in the order of their steps. A run that has to stop ends with a `CheckpointDue` where one is due anyway,
        else with `Interrupted`.
    """
    step = int(state.step)
    unread: tuple[int, int, list[Metrics]] | None = None
    last_read = time.perf_counter()

    def read(first: int, last: int, metrics: list[Metrics]) -> Logged:
        nonlocal last_read
        values = _means(metrics, last - first)
        seconds, last_read = time.perf_counter() - last_read, time.perf_counter()
        return Logged(last, last / schedule.steps_per_epoch, values, (last - first) * images_per_step / seconds)

    while step < schedule.num_steps:
        first, stop, metrics = step, schedule.next_stop(step), []
        while step < stop and not (step > first and stopping.asked_within()):
            last = min(stop, step + (stopping.steps_per_call or stop))
            state, of_call = run_steps(state, step, last - step)
            metrics += of_call
            step = last
            # After the first call: the devices have work, and no more of this chunk's time has passed.
            if unread is not None:
                yield read(*unread)
                unread = None
        unread = (first, step, metrics)
        due, ends = schedule.checkpoint_due(step), stopping.asked()
        if due or ends:
            yield read(*unread)
            unread = None
            yield (CheckpointDue if due else Interrupted)(step, state)
            last_read = time.perf_counter()
        if ends:
            return


def _means(metrics: list[Metrics], num_steps: int) -> dict[str, Float[np.ndarray, "*replicas"] | None]:
    """Over the steps that were not skipped, in float64; not-a-number where all of them were."""
    found = jax.device_get(metrics)
    means = {
        name: None if found[0][name] is None else np.asarray(np.mean([each[name] for each in found], 0, np.float64))
        for name in found[0]
    }
    skipped = means.pop("skipped", None)
    if skipped is None:
        return means
    with np.errstate(invalid="ignore"):
        taken = {name: None if mean is None else np.asarray(mean / (1.0 - skipped)) for name, mean in means.items()}
    return {**taken, "skipped_steps": np.asarray(np.round(skipped * num_steps))}
