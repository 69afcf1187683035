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


@pytest.mark.parametrize("epsilon", [1e-8, 1e-4, 0.5])
def test_adam_with_an_epsilon_by_hand(epsilon: float) -> None:
    gradients, params = np.array([3e-4, -2.0]), jnp.zeros(2)
    tx = make_optimizer(Adam(epsilon), 0.1, num_steps=2)
    state, first, second = tx.init(params), np.zeros(2), np.zeros(2)
    for step in (1, 2):
        updates, state = tx.update(jnp.asarray(gradients * step), state, params)
        first = 0.9 * first + 0.1 * gradients * step
        second = 0.999 * second + 0.001 * (gradients * step) ** 2
        by_hand = -0.1 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + epsilon)
        np.testing.assert_allclose(updates, by_hand, rtol=1e-4)


def test_cosine_after_a_warmup_starts_at_nothing_peaks_and_ends_at_nothing() -> None:
    tx = make_optimizer(Sgd(), 0.5, num_steps=110, schedule="cosine", warmup_steps=10)
    params = jnp.zeros(1)
    state, rates = tx.init(params), []
    for _ in range(111):
        updates, state = tx.update(jnp.ones(1), state, params)
        rates.append(-float(updates[0]))
    expected = [0.05 * step for step in range(10)] + [0.25 * (1 + np.cos(np.pi * step / 100)) for step in range(101)]
    np.testing.assert_allclose(rates, expected, atol=1e-6)


def test_clipping_keeps_the_direction() -> None:
    tx = make_optimizer(Sgd(), 1.0, num_steps=1, clip_norm=1.0)
    updates, _ = tx.update(jnp.array([3.0, -4.0]), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [-0.6, 0.8], rtol=1e-6)


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
