"""What is due when, and the events of a run; none of it needs a model."""

import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.training import CheckpointDue, Logged, Schedule, Stopping, TrainState, loop, training_events

BATCH = 5


def test_schedule_stops_where_something_is_due() -> None:
    schedule = Schedule(num_steps=10, steps_per_epoch=4, log_every=3, checkpoint_every=5)
    stops = [0]
    while stops[-1] < 10:
        stops.append(schedule.next_stop(stops[-1]))
    assert stops == [0, 3, 5, 6, 9, 10]
    assert [step for step in range(1, 11) if schedule.checkpoint_due(step)] == [5, 10]
    # The last step is saved whatever the interval.
    schedule = Schedule(num_steps=10, steps_per_epoch=4, log_every=3, checkpoint_every=7)
    assert [step for step in range(1, 11) if schedule.checkpoint_due(step)] == [7, 10]


def state_at(step: int) -> TrainState:
    return TrainState(jnp.int32(step), {}, (), None)


def events(schedule: Schedule, start: int = 0) -> tuple[list[Logged | CheckpointDue], list[tuple[int, int]]]:
    """The events of a run whose steps only count, and what its steps were asked for."""
    asked = []

    def run_steps(state, first_step, num_steps):
        assert first_step == int(state.step)
        asked.append((first_step, num_steps))
        metrics = [{"elbo": jnp.float32(step), "kl": None} for step in range(first_step, first_step + num_steps)]
        return state.replace(step=state.step + num_steps), metrics

    return list(training_events(state_at(start), run_steps, BATCH, schedule)), asked


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


@pytest.mark.parametrize("steps_per_call", [1, None])
def test_rate_of_images_is_that_of_the_device(steps_per_call: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device takes a second a step. Its metrics are the times at which they are there to be read."""
    clock, busy_until = [0.0], [0.0]

    def device_get(metrics):
        clock[0] = max(clock[0], *(float(each["elbo"]) for each in metrics))
        return [{"elbo": np.asarray(each["elbo"])} for each in metrics]

    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(loop.jax, "device_get", device_get)

    def run_steps(state, first_step, num_steps):
        found = []
        for _ in range(num_steps):
            # The host may be two steps ahead of the device, as in `ResidentSteps`.
            if steps_per_call:
                clock[0] = max(clock[0], busy_until[0] - 2.0)
            busy_until[0] = max(busy_until[0], clock[0]) + 1.0
            found.append({"elbo": jnp.float32(busy_until[0])})
        return state.replace(step=state.step + num_steps), found

    schedule = Schedule(num_steps=40, steps_per_epoch=40, log_every=10, checkpoint_every=40)
    stopping = Stopping(steps_per_call=steps_per_call)
    happened = list(training_events(state_at(0), run_steps, BATCH, schedule, stopping))
    rates = [event.images_per_second for event in happened if isinstance(event, Logged)]
    assert rates == pytest.approx([BATCH] * 4)


def test_every_event_has_the_mean_over_its_steps() -> None:
    happened, asked = events(SCHEDULE)
    assert asked == [(0, 3), (3, 2), (5, 1), (6, 3), (9, 1)]
    logged = [event.metrics for event in happened if isinstance(event, Logged)]
    assert logged == [{"elbo": mean, "kl": None} for mean in (1.0, 3.5, 5.0, 7.0, 9.0)]


@pytest.mark.parametrize("start", [5, 10])
def test_events_from_the_middle_are_those_of_the_whole_run(start: int) -> None:
    whole, whole_asked = events(SCHEDULE)
    rest, rest_asked = events(SCHEDULE, start)
    later = [event for event in whole if event.step > start]

    def told(happened: list[Logged | CheckpointDue]) -> list[tuple]:
        return [(type(event), event.step, getattr(event, "metrics", None)) for event in happened]

    assert told(rest) == told(later)
    assert rest_asked == [asked for asked in whole_asked if asked[0] >= start]
