"""Discretized logistic: bins that sum to 1, against scipy, in float32 and at extremes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads

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


@pytest.mark.long
def test_gradients_agree_with_finite_differences() -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        mean, log_scale = jnp.asarray(rng.normal(0, 0.7, 60)), jnp.asarray(rng.uniform(-5.0, 3.0, 60))
        x = jnp.asarray(rng.integers(0, 17, 60) / 16)
        log_prob = jax.jit(lambda mean, log_scale: logistic_level_log_prob(mean, log_scale, x, 17))
        check_grads(log_prob, (mean, log_scale), order=1, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_extreme_outputs_stay_finite(levels: int) -> None:
    likelihood = DiscretizedLogistic(levels)
    means, log_scales = [-1e6, -1.0, 0.0, 1e6], [-1e30, -1e4, -7.0, 90.0, 1e4]
    pixels = [0.0, 1.0, 1.0 / (levels - 1)]
    mean, log_scale, x = (
        grid.reshape(-1, 1, 1, 1) for grid in jnp.meshgrid(*map(jnp.array, (means, log_scales, pixels)))
    )
    outputs = jnp.concatenate([mean, log_scale], axis=-1)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(likelihood.log_prob)))(outputs, x)
    assert np.isfinite(values).all() and np.isfinite(gradients).all()
    assert np.isfinite(jax.jit(likelihood.mean)(outputs)).all()
    assert np.isfinite(jax.jit(likelihood.sample)(outputs, jax.random.key(0))).all()


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


@pytest.mark.long
def test_interface() -> None:
    likelihood = DiscretizedLogistic(17)
    assert likelihood.outputs_per_pixel(3) == 6
    assert likelihood.base_measure == "17 levels"
    rng = np.random.default_rng(0)
    outputs, x = jnp.asarray(rng.normal(size=(5, 2, 3, 4, 6))), jnp.asarray(rng.integers(0, 17, (2, 3, 4, 3)) / 16)
    log_prob = jax.jit(likelihood.log_prob)(outputs, x)
    assert log_prob.shape == (5, 2)
    mean, log_scale = likelihood.parameters(outputs[3, 1])
    one_image = logistic_level_log_prob(mean, log_scale, x[1], 17)
    np.testing.assert_allclose(log_prob[3, 1], np.sum(one_image), rtol=1e-5)
    samples = jax.eval_shape(likelihood.sample, outputs, jax.random.key(2))
    assert jax.eval_shape(likelihood.mean, outputs).shape == samples.shape == (5, 2, 3, 4, 3)
