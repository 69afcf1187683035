"""The order of the data, what is due when, and the events of a run; none of it needs a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.training import CheckpointDue, Logged, Schedule, TrainState, training_events
from vae_jax.training.loop import batch_indices

IMAGES = np.zeros((23, 2, 2, 1), np.uint8)
BATCH = 5


def test_epoch_has_each_image_at_most_once_and_as_many_batches_as_fit() -> None:
    first = batch_indices(seed=0, first_step=0, num_steps=4, batch_size=BATCH, num_images=23)
    assert first.shape == (4, 5) and first.dtype == np.int32
    assert len(set(first.ravel())) == 20
    assert set(first.ravel()) <= set(range(23))


def test_epochs_differ_and_leave_out_other_images() -> None:
    indices = batch_indices(seed=0, first_step=0, num_steps=40, batch_size=BATCH, num_images=23).reshape(10, 20)
    left_out = {frozenset(set(range(23)) - set(epoch)) for epoch in indices}
    assert len({tuple(epoch) for epoch in indices}) == 10
    assert len(left_out) > 5
    assert set(indices.ravel()) == set(range(23))


def test_epochs_of_all_images_have_all_images() -> None:
    indices = batch_indices(seed=0, first_step=0, num_steps=8, batch_size=5, num_images=20).reshape(2, 20)
    for epoch in indices:
        assert sorted(epoch) == list(range(20))


def test_batch_is_a_function_of_the_seed_and_the_step_alone() -> None:
    whole = batch_indices(seed=1, first_step=0, num_steps=11, batch_size=BATCH, num_images=23)
    for step in (10, 0, 7):
        np.testing.assert_array_equal(batch_indices(1, step, 1, BATCH, 23)[0], whole[step])
    np.testing.assert_array_equal(batch_indices(1, 3, 6, BATCH, 23), whole[3:9])
    assert np.any(batch_indices(2, 0, 11, BATCH, 23) != whole)


def test_positions_are_uniform() -> None:
    # 2,000 epochs of 5 images: each should come first 400 times, with a standard deviation of 18.
    first = batch_indices(seed=0, first_step=0, num_steps=2000, batch_size=5, num_images=5)[:, 0]
    assert np.all(np.abs(np.bincount(first) - 400) < 5 * 18)


def test_schedule_stops_where_something_is_due() -> None:
    schedule = Schedule(num_steps=10, steps_per_epoch=4, log_every=3, checkpoint_every=5)
    stops = [0]
    while stops[-1] < 10:
        stops.append(schedule.next_stop(stops[-1]))
    assert stops == [0, 3, 5, 6, 9, 10]
    assert [step for step in range(1, 11) if schedule.checkpoint_due(step)] == [5, 10]


def test_last_step_is_saved_whatever_the_interval() -> None:
    schedule = Schedule(num_steps=10, steps_per_epoch=4, log_every=3, checkpoint_every=7)
    assert [step for step in range(1, 11) if schedule.checkpoint_due(step)] == [7, 10]


def state_at(step: int) -> TrainState:
    return TrainState(jnp.int32(step), {}, (), None)


def events(schedule: Schedule, start: int = 0) -> tuple[list[Logged | CheckpointDue], list[np.ndarray]]:
    """The events of a run whose steps only count, and the batches that its steps were given."""
    batches = []

    def run_steps(state, images, labels, order, num_steps, key):
        batches.extend(order[: int(num_steps)])
        first = jnp.float32(batches[-int(num_steps)][0])
        return state.replace(step=state.step + num_steps), {"elbo": first, "loss": -first}

    key = jax.random.key(0)
    made = training_events(state_at(start), run_steps, jnp.asarray(IMAGES), None, key, 0, BATCH, schedule)
    return list(made), batches


SCHEDULE = Schedule(num_steps=10, steps_per_epoch=4, log_every=3, checkpoint_every=5)


def test_events_come_in_order_with_metrics_before_their_checkpoint() -> None:
    happened, _ = events(SCHEDULE)
    assert [(type(event), event.step) for event in happened] == [
        *((Logged, 3), (Logged, 5), (CheckpointDue, 5)),
        *((Logged, 6), (Logged, 9), (Logged, 10), (CheckpointDue, 10)),
    ]
    assert [event.epoch for event in happened if isinstance(event, Logged)] == [0.75, 1.25, 1.5, 2.25, 2.5]
    assert all(event.images_per_second > 0 for event in happened if isinstance(event, Logged))
    assert all(event.step == int(event.state.step) for event in happened if isinstance(event, CheckpointDue))


def test_every_step_gets_its_batch_and_every_event_its_metrics() -> None:
    happened, batches = events(SCHEDULE)
    expected = batch_indices(0, 0, 10, BATCH, 23)
    np.testing.assert_array_equal(batches, expected)
    logged = [event.metrics for event in happened if isinstance(event, Logged)]
    firsts = [float(expected[step][0]) for step in (0, 3, 5, 6, 9)]
    assert logged == [{"elbo": first, "loss": -first} for first in firsts]


@pytest.mark.parametrize("start", [5, 10])
def test_events_from_the_middle_are_those_of_the_whole_run(start: int) -> None:
    whole, whole_batches = events(SCHEDULE)
    rest, rest_batches = events(SCHEDULE, start)
    later = [event for event in whole if event.step > start]

    def told(happened: list[Logged | CheckpointDue]) -> list[tuple]:
        return [(type(event), event.step, getattr(event, "metrics", None)) for event in happened]

    assert told(rest) == told(later)
    assert len(rest_batches) == 10 - start
    if rest_batches:
        np.testing.assert_array_equal(rest_batches, whole_batches[start:])
