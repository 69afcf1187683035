"""The Bernoulli likelihood against scipy and numpyro, and far beyond where the naive formula fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.likelihoods import Bernoulli, bernoulli_log_prob


def draw() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, 4, 3, 2), scale=3), rng.integers(0, 2, (5, 4, 3, 2)).astype(np.float64)


def total(logits: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(bernoulli_log_prob(logits, x))


def test_probability_is_scipys() -> None:
    logits, x = draw()
    ours = bernoulli_log_prob(jnp.asarray(logits, jnp.float32), jnp.asarray(x, jnp.float32))
    theirs = scipy.stats.bernoulli(1 / (1 + np.exp(-logits))).logpmf(x.astype(int)).sum((1, 2, 3))
    assert ours.shape == (5,)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_gradient_is_pixel_minus_probability() -> None:
    logits, x = (jnp.asarray(array, jnp.float32) for array in draw())
    np.testing.assert_allclose(jax.grad(total)(logits, x), x - 1 / (1 + np.exp(-logits)), atol=1e-6)


@pytest.mark.parametrize(
    ("logit", "pixel", "value", "slope"),
    [(1e4, 1.0, 0.0, 0.0), (1e4, 0.0, -1e4, -1.0), (-1e4, 1.0, -1e4, 1.0), (-1e4, 0.0, 0.0, 0.0)],
)
def test_extreme_logits_have_finite_values_and_gradients(
    logit: float, pixel: float, value: float, slope: float
) -> None:
    logits, x = jnp.full((1, 1, 1, 1), logit), jnp.full((1, 1, 1, 1), pixel)
    np.testing.assert_allclose(bernoulli_log_prob(logits, x), value)
    np.testing.assert_allclose(jax.grad(total)(logits, x)[0, 0, 0, 0], slope)


def test_samples_follow_the_mean() -> None:
    logits = jnp.broadcast_to(jnp.asarray([-2.0, 0.0, 1.5]).reshape(1, 3, 1), (4000, 1, 3, 1))
    member = Bernoulli()
    samples = member.sample(logits, jax.random.key(0))
    assert set(np.unique(samples)) == {0.0, 1.0}
    np.testing.assert_allclose(member.mean(logits)[0].ravel(), [0.1192029, 0.5, 0.8175745], rtol=1e-5)
    # Four standard errors of 4,000 draws.
    np.testing.assert_allclose(samples.mean(0), member.mean(logits)[0], atol=4 * 0.5 / np.sqrt(4000))
