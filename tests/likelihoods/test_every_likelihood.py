"""What holds for every likelihood: samples in front, sizes, finite numbers at extremes. The short ones by scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads

from vae_jax.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    GaussianPerPixel,
    Poisson,
)

EVERY = {
    "bernoulli": (Bernoulli(), 3),
    "continuous_bernoulli": (ContinuousBernoulli(), 3),
    "gaussian": (Gaussian(0.3), 3),
    "gaussian_per_pixel": (GaussianPerPixel(), 6),
    "poisson": (Poisson(), 3),
    "discretized_logistic": (DiscretizedLogistic(17), 6),
    "discretized_logistic_mixture": (DiscretizedLogisticMixture(17, components=2), 20),
}
every = pytest.mark.parametrize("name", EVERY)


def draw(size: int, scale: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Outputs `[5, 2, H, W, size]`, and colours of 17 levels."""
    rng = np.random.default_rng(0)
    return jnp.asarray(scale * rng.normal(size=(5, 2, 3, 4, size))), jnp.asarray(rng.integers(0, 17, (2, 3, 4, 3)) / 16)


@every
def test_sizes_and_samples_in_front(name: str) -> None:
    (likelihood, size), key = EVERY[name], jax.random.key(0)
    assert likelihood.outputs_per_pixel(3) == size
    outputs, x = draw(size)
    log_prob = jax.jit(lambda *args: likelihood.apply({}, *args, method="log_prob"))
    together = log_prob(outputs, x)
    assert together.shape == (5, 2)
    np.testing.assert_allclose(together[3, 1], log_prob(outputs[3, 1], x[1]), rtol=1e-5)
    mean = jax.eval_shape(lambda: likelihood.apply({}, outputs, method="mean"))
    samples = jax.eval_shape(lambda: likelihood.apply({}, outputs, key, method="sample"))
    assert mean.shape == samples.shape == (5, 2, 3, 4, 3)


@every
def test_gradients_agree_with_finite_differences(name: str) -> None:
    likelihood, size = EVERY[name]
    outputs, x = (np.asarray(array, np.float64) for array in draw(size))
    with jax.enable_x64(True):
        total = jax.jit(lambda outputs: likelihood.apply({}, outputs, jnp.asarray(x), method="log_prob"))
        check_grads(total, (outputs[0],), order=1, modes=["rev"], eps=1e-5, rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("name", [name for name in EVERY if name != "poisson"])
def test_extreme_outputs_stay_finite(name: str, scale: float) -> None:
    likelihood, size = EVERY[name]
    outputs, x = draw(size, scale)

    @jax.jit
    def numbers(outputs: jax.Array) -> tuple:
        total = jax.value_and_grad(lambda outputs: jnp.sum(likelihood.apply({}, outputs, x, method="log_prob")))
        mean = likelihood.apply({}, outputs, method="mean")
        return *total(outputs), mean, likelihood.apply({}, outputs, jax.random.key(0), method="sample")

    assert all(np.isfinite(leaf).all() for leaf in numbers(jnp.clip(outputs, -1e6, 80.0 if "per" in name else 1e6)))


def test_counts_are_scipys_poisson() -> None:
    rng = np.random.default_rng(0)
    log_rate, counts = rng.normal(size=(3, 1, 5, 1)), rng.integers(0, 9, (3, 1, 5, 1))
    each = scipy.stats.poisson.logpmf(counts, np.exp(log_rate))
    outputs, x = jnp.asarray(log_rate, jnp.float32), jnp.asarray(counts, jnp.float32)
    np.testing.assert_allclose(Poisson().log_prob(outputs, x), each.sum(axis=(1, 2, 3)), rtol=1e-5)
    seen = x > 3
    np.testing.assert_allclose(Poisson().log_prob(outputs, x, seen), (each * seen).sum(axis=(1, 2, 3)), rtol=1e-5)
    draw = jax.jit(jax.vmap(lambda key: Poisson().sample(outputs, key)))
    draws = draw(jax.random.split(jax.random.key(0), 20_000))
    rate = np.exp(log_rate)
    np.testing.assert_allclose(draws.mean(axis=0), rate, atol=6.0 * np.sqrt(rate.max() / 20_000))
    np.testing.assert_allclose(draws.var(axis=0), rate, rtol=0.1)


def outputs_of(mean: np.ndarray, stddev: np.ndarray) -> jax.Array:
    """What the decoder must put out for these; the inverse of the soft bound at 1e-2."""
    minimum = 2.0 * np.log(1e-2)
    above = 2.0 * np.log(stddev) - minimum
    return jnp.asarray(np.concatenate([mean, minimum + np.log(np.expm1(above))], axis=-1))


def test_gaussian_with_a_variance_for_each_pixel_is_scipys() -> None:
    rng, member = np.random.default_rng(0), GaussianPerPixel(1e-2)
    mean, stddev, x = (rng.uniform(low, high, (2, 3, 4, 3)) for low, high in ((-0.5, 1.5), (0.02, 2.0), (0.0, 1.0)))
    expected = scipy.stats.norm(mean, stddev).logpdf(x).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(member.log_prob(outputs_of(mean, stddev), jnp.asarray(x)), expected, rtol=1e-5)
    drawn = member.sample(outputs_of(np.full((100, 200, 1), 0.3), np.full((100, 200, 1), 0.2)), jax.random.key(0))
    # Kolmogorov-Smirnov at 1e-4: with fresh seeds, one run in 10000 would fail.
    assert scipy.stats.kstest(np.ravel(drawn), scipy.stats.norm(0.3, 0.2).cdf).pvalue > 1e-4


def test_standard_deviation_stays_above_its_bound() -> None:
    outputs = jnp.stack([jnp.zeros(4), jnp.array([-1e30, -1e4, 0.0, 10.0])], axis=-1).reshape(4, 1, 1, 2)
    stddev = np.exp(0.5 * np.asarray(GaussianPerPixel().parameters(outputs)[1]).ravel())
    np.testing.assert_allclose(stddev, [1e-3, 1e-3, 1.0, np.exp(5.0)], rtol=1e-5)
