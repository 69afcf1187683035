"""Counts against scipy's Poisson distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from vae_jax.likelihoods import Poisson

LOG_RATE = jnp.asarray(np.random.default_rng(0).normal(size=(3, 1, 5, 1)), jnp.float32)
COUNTS = jnp.asarray(np.random.default_rng(1).integers(0, 9, (3, 1, 5, 1)), jnp.float32)


def test_log_probability() -> None:
    each = scipy.stats.poisson.logpmf(np.asarray(COUNTS), np.exp(LOG_RATE))
    np.testing.assert_allclose(Poisson().log_prob(LOG_RATE, COUNTS), each.sum(axis=(1, 2, 3)), rtol=1e-5)
    seen = COUNTS > 3
    np.testing.assert_allclose(Poisson().log_prob(LOG_RATE, COUNTS, seen), (each * seen).sum(axis=(1, 2, 3)), rtol=1e-5)


def test_draws_have_its_mean_and_variance() -> None:
    draws = jax.vmap(lambda key: Poisson().sample(LOG_RATE, key))(jax.random.split(jax.random.key(0), 20_000))
    rate = np.exp(LOG_RATE)
    np.testing.assert_allclose(draws.mean(axis=0), rate, atol=6.0 * np.sqrt(rate.max() / 20_000))
    np.testing.assert_allclose(draws.var(axis=0), rate, rtol=0.1)
    np.testing.assert_allclose(Poisson().mean(LOG_RATE), rate, rtol=1e-6)
