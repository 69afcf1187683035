"""Steps that give numbers that aren't finite: found by taking them again, or skipped."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vae_jax.models import Batch
from vae_jax.objectives import ElboTerms, Loss
from vae_jax.sharding import batch_mesh
from vae_jax.training import (
    BatchOrder,
    Logged,
    ResidentSteps,
    Schedule,
    create_state,
    find_broken_step,
    make_train_step,
    replicate,
    training_events,
)

SEED, BATCH, NUM_IMAGES, RATE = 4, 8, 64, 0.1
BROKEN = 37
TX = optax.sgd(RATE)


def images() -> np.ndarray:
    """One number each; only the last is 255."""
    values = np.random.default_rng(0).integers(0, 255, (NUM_IMAGES, 1, 1, 1), np.uint8)
    values[BROKEN] = 255
    return values


def prepare(batch, given, key):
    return Batch(batch / 255.0)


def log_of_zero(variables, batch, key, step):
    """-(w - x)^2, but log 0 for an image of value 1."""
    x = batch.x[:, 0, 0, 0]
    reconstruction = jnp.where(x == 1.0, -jnp.inf, -((variables["params"]["w"] - x) ** 2))
    terms = ElboTerms(reconstruction, reconstruction, jnp.zeros_like(reconstruction))
    return Loss({"model": -jnp.mean(reconstruction)}, terms)


def state_of(tx: optax.GradientTransformation = TX, **params: float):
    return create_state({"params": {name: jnp.float32(value) for name, value in params.items()}}, tx, False)


def steps(skip: bool = False, num_parts: int = 1, seeds: tuple[int, ...] = (SEED,)) -> ResidentSteps:
    step = make_train_step(log_of_zero, TX, prepare, num_parts=num_parts, skip_nonfinite=skip)
    step = replicate(step) if len(seeds) > 1 else step
    return ResidentSteps(step, batch_mesh(BATCH), images(), None, BatchOrder(seeds, BATCH, NUM_IMAGES), 8)


def batch_with_the_broken_image(seed: int = SEED) -> tuple[int, np.ndarray]:
    order = BatchOrder((seed,), BATCH, NUM_IMAGES).indices(np.arange(NUM_IMAGES // BATCH))
    step = int(np.flatnonzero((order == BROKEN).any(axis=1))[0])
    return step, order[step]


@pytest.mark.parametrize(("longest", "num_parts"), [(8, 1), pytest.param(3, 2, marks=pytest.mark.long), (1, 1)])
def test_step_and_terms_are_found(longest: int, num_parts: int) -> None:
    step, _ = batch_with_the_broken_image()
    assert find_broken_step(steps(), state_of(w=0.5), step, 8) is None
    broken = find_broken_step(steps(num_parts=num_parts), state_of(w=0.5), 8, longest)
    assert broken is not None and (broken.step, broken.replica) == (step + 1, None)
    assert broken.terms == {"loss": np.inf, "elbo": -np.inf, "reconstruction": -np.inf} and broken.paths == []
    assert broken.loss_before is not None and np.isfinite(broken.loss_before)


@pytest.mark.parametrize("tx", [TX, optax.adam(RATE, eps=0.0)])
def test_parameter_is_found_if_the_loss_is_finite(tx: optax.GradientTransformation) -> None:
    """|w| as a root, which has no derivative at 0; a second parameter has the gradient 0, which Adam divides by 0."""

    def steep(variables, batch, key, step):
        params, x = variables["params"], batch.x
        reconstruction = -((params["other"] - x[:, 0, 0, 0]) ** 2)
        terms = ElboTerms(reconstruction, reconstruction, jnp.zeros_like(reconstruction))
        root = jnp.sqrt(params["w"] ** 2) if tx is TX else 0.0 * params["w"]
        return Loss({"model": root - jnp.mean(reconstruction)}, terms)

    order = BatchOrder((SEED,), BATCH, NUM_IMAGES)
    run = ResidentSteps(make_train_step(steep, tx, prepare), batch_mesh(BATCH), images(), None, order, 8)
    broken = find_broken_step(run, state_of(tx, w=0.0, other=0.5), 8, 8)
    assert broken is not None and (broken.step, broken.terms, broken.paths) == (1, {}, ["w"])
    assert broken.loss_before is None


def test_replica_is_found() -> None:
    seeds = (SEED, SEED + 1)
    first = [batch_with_the_broken_image(seed)[0] for seed in seeds]
    state = create_state({"params": {"w": jnp.full(2, 0.5)}}, TX, False)
    broken = find_broken_step(steps(seeds=seeds), state, 8, 8, num_replicas=2)
    assert broken is not None and broken.replica is not None
    assert broken.step == min(first) + 1 == first[broken.replica] + 1 and "loss" in broken.terms


@pytest.mark.parametrize("num_parts", [1, 2])
def test_skipped_step_is_counted_and_changes_nothing(num_parts: int) -> None:
    broken, _ = batch_with_the_broken_image()
    w, losses = 0.5, []
    for step, batch in enumerate(BatchOrder((SEED,), BATCH, NUM_IMAGES).indices(np.arange(8))):
        if step != broken:
            x = images()[batch].ravel() / 255.0
            losses.append(np.mean((w - x) ** 2))
            w -= RATE * 2 * np.mean(w - x)
    schedule = Schedule(8, 8, 8, 8)
    logged, due = training_events(state_of(w=0.5), steps(True, num_parts), BATCH, schedule)
    assert isinstance(logged, Logged)
    assert logged.metrics["skipped_steps"] == 1
    np.testing.assert_allclose(logged.metrics["loss"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(due.state.params["w"], w, rtol=1e-6)
    assert int(due.state.step) == 8


def test_replicas_skip_steps_separately() -> None:
    seeds = (SEED, SEED + 1)
    run = steps(True, seeds=seeds)
    first = create_state({"params": {"w": jnp.full(2, 0.5)}}, TX, False)
    _, metrics = run(first, 0, 8)
    np.testing.assert_allclose(metrics[0]["skipped"], 1 / 8)
    (step, _), (other, _) = (batch_with_the_broken_image(seed) for seed in seeds)
    assert step != other
    _, metrics = run(create_state({"params": {"w": jnp.full(2, 0.5)}}, TX, False), 0, min(step, other) + 1)
    assert sorted(np.asarray(metrics[0]["skipped"]) > 0) == [False, True]
