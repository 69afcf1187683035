"""Schedules and optimizers: the ladder as its paper has it, Adam by hand."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vae_jax.training import Adam, AdamW, Sgd, make_optimizer
from vae_jax.training.optimizers import iwae_schedule


def test_ladder_is_that_of_burda_et_al() -> None:
    # Section 5: rates 0.001 * 10^(-i/7) for 3^i passes over the data, i = 0..7; 3280 passes in all.
    written_out = np.concatenate([np.full(3**i, 0.001 * 10 ** (-i / 7)) for i in range(8)])
    assert len(written_out) == 3280
    schedule = iwae_schedule(0.001, steps_per_epoch=10)
    for epoch in (0, 1, 3, 4, 12, 13, 39, 40, 1092, 1093, 3279):
        for step in (10 * epoch, 10 * epoch + 9):
            assert float(schedule(step)) == pytest.approx(written_out[epoch], rel=1e-5), (epoch, step)


FALLING = [0.25 * (1 + np.cos(np.pi * step / 8)) for step in range(9)]


@pytest.mark.parametrize(("schedule", "after"), [("cosine", FALLING), ("constant", [0.5] * 9)])
def test_rate_rises_over_the_warmup_and_then_follows_its_schedule(schedule: str, after: list[float]) -> None:
    tx = make_optimizer(Sgd(), 0.5, num_steps=12, schedule=schedule, warmup_steps=4)
    update, state, rates = jax.jit(tx.update), tx.init(jnp.zeros(1)), []
    for _ in range(13):
        updates, state = update(jnp.ones(1), state, jnp.zeros(1))
        rates.append(-float(updates[0]))
    np.testing.assert_allclose(rates, [0.0, 0.125, 0.25, 0.375, *after], atol=1e-6)


@pytest.mark.parametrize(("length", "expected"), [(50.0, [-0.12, -0.16]), (0.5, [-0.03, -0.04])])
def test_gradients_are_clipped_to_their_norm(length: float, expected: list[float]) -> None:
    tx, gradient = make_optimizer(Sgd(), 0.1, 10, clip_norm=2.0), length * jnp.array([0.6, 0.8])
    np.testing.assert_allclose(tx.update(gradient, tx.init(gradient))[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("ours", "reference"), [(Adam, optax.adam), (AdamW, optax.adamw)])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-2])
def test_optax_takes_the_same_steps(ours: type, reference: Callable, epsilon: float) -> None:
    """Over scales of gradients from 1e-6 to 1e3, which epsilon matters for, and from optax's own state."""
    tx, known = (
        make_optimizer(ours(epsilon=epsilon), 0.01, num_steps=30),
        reference(optax.constant_schedule(0.01), eps=epsilon),
    )
    scale = jnp.logspace(-6, 3, 50)
    params = theirs = {"w": jnp.linspace(-1.0, 1.0, 50)}
    state = known_state = known.init(theirs)
    for step in range(30):
        gradient = {"w": scale * jax.random.normal(jax.random.key(step), (50,))}
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        updates, known_state = known.update(gradient, known_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
        np.testing.assert_allclose(params["w"], theirs["w"], rtol=2e-6, atol=1e-6)
    assert jax.tree.structure(state) == jax.tree.structure(known_state)
