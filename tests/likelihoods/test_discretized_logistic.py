"""Discretized logistic: bins that sum to 1, against scipy, in float32 and at extremes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.likelihoods import DiscretizedLogistic, bernoulli_log_prob
from vae_jax.likelihoods.discretized_logistic import logistic_level_log_prob, logistic_level_mean

MEANS = [-50.0, -1.0, -0.3, 0.0, 0.5, 0.999, 1.0, 3.0, 50.0]
LOG_SCALES = [-7.0, -5.0, -3.0, -1.0, 0.0, 3.0, 20.0, 100.0]


def reference(mean: float, log_scale: float, levels: int) -> np.ndarray:
    """Log-probability of each level, from scipy's distribution in whichever tail doesn't cancel."""
    edges = np.concatenate([[-np.inf], (2.0 * np.arange(levels - 1) + 2.0 - levels) / (levels - 1), [np.inf]])
    distribution = scipy.stats.logistic(mean, np.exp(log_scale))
    below, above = np.diff(distribution.cdf(edges)), -np.diff(distribution.sf(edges))
    return np.log(np.where(edges[1:] < mean, below, above))


def all_levels(levels: int) -> jax.Array:
    return jnp.arange(levels) / (levels - 1)


def log_probs(mean: float, log_scale: float, levels: int) -> jax.Array:
    arguments = jnp.asarray(mean), jnp.asarray(log_scale), all_levels(levels)
    return jax.jit(logistic_level_log_prob, static_argnums=3)(*arguments, levels)


@pytest.mark.long
@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_bins_sum_to_one_in_float32(levels: int) -> None:
    mean, log_scale = (
        jnp.asarray(values)[:, None] for values in zip(*itertools.product(MEANS, LOG_SCALES), strict=True)
    )
    of_levels = logistic_level_log_prob(mean, log_scale, all_levels(levels), levels)
    np.testing.assert_allclose(jax.nn.logsumexp(of_levels, axis=-1), 0.0, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, 0.0), (0.3, -2.0), (-1.2, -4.0), (0.71, -7.0), (0.1, 5.0)])
def test_value_agrees_with_scipy(mean: float, log_scale: float, levels: int) -> None:
    with np.errstate(divide="ignore"):
        expected = reference(mean, log_scale, levels)
    # Where scipy's own difference underflows there is nothing to compare with.
    seen = expected > -600.0
    with jax.enable_x64(True):
        np.testing.assert_allclose(log_probs(mean, log_scale, levels)[seen], expected[seen], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(log_probs(mean, log_scale, levels)[seen], expected[seen], rtol=2e-5, atol=1e-5)


def test_two_levels_are_a_bernoulli() -> None:
    mean, log_scale = jnp.array([0.3, -2.0]).reshape(1, 2, 1), jnp.array([0.5, -1.0]).reshape(1, 2, 1)
    for pixels in itertools.product([0.0, 1.0], repeat=2):
        x = jnp.array(pixels).reshape(1, 2, 1)
        ours = logistic_level_log_prob(mean, log_scale, x, 2).sum()
        np.testing.assert_allclose(ours, bernoulli_log_prob(mean * jnp.exp(-log_scale), x), rtol=1e-6)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_mean_is_that_of_the_levels(levels: int) -> None:
    mean, log_scale = np.array([0.0, 0.9, -3.0, 0.37]), np.array([0.0, -1.0, 0.5, -6.0])
    values = np.arange(levels) / (levels - 1)
    expected = [np.exp(reference(*pair, levels)) @ values for pair in zip(mean, log_scale, strict=True)]
    ours = logistic_level_mean(jnp.asarray(mean), jnp.asarray(log_scale), levels)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.long
@pytest.mark.parametrize(
    ("seed", "levels", "mean", "log_scale"),
    [(0, 17, 0.2, -2.0), (1, 256, -0.9, -3.0), (2, 256, 0.5, 1.0), (3, 2, 0.3, 0.0)],
)
def test_samples_follow_the_probabilities(seed: int, levels: int, mean: float, log_scale: float) -> None:
    """Chi-square at 1e-4 for each of 4: with fresh seeds, one run in 2500 would fail."""
    outputs = jnp.broadcast_to(jnp.array([mean, log_scale]), (100, 200, 2))
    x = jax.jit(DiscretizedLogistic(levels).sample)(outputs, jax.random.key(seed))
    # The bound on the log-scale moves it by softplus(-7 - s), which the samples are too few to see.
    counts = np.bincount(np.round(np.ravel(x) * (levels - 1)).astype(int), minlength=levels)
    np.testing.assert_allclose(np.unique(x), np.flatnonzero(counts) / (levels - 1), rtol=1e-6)
    expected = 20_000 * np.exp(reference(mean, log_scale, levels))
    rare = expected < 10.0
    counts = np.append(counts[~rare], counts[rare].sum()) if rare.any() else counts
    expected = np.append(expected[~rare], expected[rare].sum()) if rare.any() else expected
    assert scipy.stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-4
