"""Refitted noise: densities against scipy, and the best width against an exact marginal likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from linear_gaussian import LinearGaussian

from vae_jax.evaluation import best_log_factor, make_rescaled_estimate
from vae_jax.likelihoods import DiscretizedLogistic, DiscretizedLogisticMixture, Gaussian, GaussianPerPixel
from vae_jax.models import Batch


def logistic(outputs: np.ndarray, x: np.ndarray, log_factor: float) -> np.ndarray:
    """Of scipy, on 17 levels."""
    mean, log_scale = (
        np.asarray(part, np.float64) for part in DiscretizedLogistic(17).parameters(jnp.asarray(outputs))
    )
    distribution, level = scipy.stats.logistic(mean, np.exp(log_scale + log_factor)), np.round(x * 16)
    upper = np.where(level < 16, distribution.cdf((2 * level + 1 - 16) / 16), 1.0)
    return np.log(upper - np.where(level > 0, distribution.cdf((2 * level - 1 - 16) / 16), 0.0))


def per_pixel(outputs: np.ndarray, x: np.ndarray, log_factor: float) -> np.ndarray:
    mean, logvar = GaussianPerPixel().parameters(jnp.asarray(outputs))
    return scipy.stats.norm(mean, np.exp(0.5 * np.asarray(logvar) + log_factor)).logpdf(x)


NOISE = {
    "gaussian": (Gaussian(0.3).bind({}), 2, lambda mean, x, f: scipy.stats.norm(mean, 0.3 * np.exp(f)).logpdf(x)),
    "gaussian_per_pixel": (GaussianPerPixel(), 4, per_pixel),
    "discretized_logistic": (DiscretizedLogistic(17), 4, logistic),
    # One channel, one component: a weight (that counts for nothing), a mean, a log-scale.
    "mixture": (DiscretizedLogisticMixture(17, 1), 3, lambda outputs, x, f: logistic(outputs[..., 1:], x, f)),
}


@pytest.mark.parametrize("log_factor", [-1.0, 0.0, 0.7])
@pytest.mark.parametrize(("member", "size", "each"), NOISE.values(), ids=NOISE)
def test_density_with_wider_noise_is_scipys(member, size: int, each, log_factor: float) -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(5, 3, 4, size), scale=0.4).astype(np.float32)
    x = (rng.integers(0, 17, (5, 3, 4, 1 if size == 3 else 2)) / 16).astype(np.float32)
    log_prob = jax.jit(lambda outputs, x, log_factor: member.log_prob(outputs, x, log_factor=log_factor))
    np.testing.assert_allclose(log_prob(outputs, x, log_factor), each(outputs, x, log_factor).sum((1, 2, 3)), rtol=1e-4)


@pytest.mark.long
def test_refitting_finds_the_maximum_of_the_exact_marginal_likelihood() -> None:
    # A model whose noise was set to 1.6 times what it is, with the best q for that.
    truth = LinearGaussian.draw((6, 6, 1), 3, variance=0.05)
    x = truth.sample(60).astype(np.float32)
    wrong = LinearGaussian(truth.weights, truth.bias, truth.variance * 1.6**2, truth.shape)
    estimate = make_rescaled_estimate(wrong.vae(), 2000)
    key = jax.random.key(0)

    def mean_log_likelihood(factors: np.ndarray) -> np.ndarray:
        found = estimate(wrong.variables(), Batch(x), jnp.arange(60), key, jnp.asarray(factors, jnp.float32))
        return np.asarray(found.log_likelihood, np.float64).mean(0)

    def exact(log_factor: float) -> float:
        return truth.log_likelihood(x, wrong.variance * np.exp(2 * log_factor)).mean()

    best = scipy.optimize.minimize_scalar(lambda value: -exact(value), bounds=(-2, 2), method="bounded").x
    assert abs(best - np.log(1 / 1.6)) < 0.05
    assert abs(best_log_factor(mean_log_likelihood) - best) < 0.02
    found = estimate(wrong.variables(), Batch(x), jnp.arange(60), key, jnp.asarray([0.0, best], jnp.float32))
    gain = np.asarray(found.log_likelihood[:, 1] - found.log_likelihood[:, 0], np.float64)
    error = np.sqrt(np.asarray(found.log_likelihood_variance, np.float64).sum()) / 60
    assert abs(gain.mean() - (exact(best) - exact(0.0))) < 4 * error + 0.01
    assert exact(best) - exact(0.0) > 2.0


def test_search_stops_at_its_bounds() -> None:
    assert best_log_factor(lambda factors: factors) == 3.0
    assert best_log_factor(lambda factors: -factors) == -3.0
    assert abs(best_log_factor(lambda factors: -((factors - 0.4321) ** 2)) - 0.4321) < 0.01
