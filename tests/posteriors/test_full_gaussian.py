"""The full-covariance posterior against scipy, numpyro and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
import scipy.stats

from vae_jax.posteriors import FullGaussian, FullGaussianParameters


def parameters_of(seed: int, batch: int = 3, size: int = 4) -> FullGaussianParameters:
    rng = np.random.default_rng(seed)
    below = np.tril(rng.normal(size=(batch, size, size)), -1)
    return FullGaussianParameters(
        *map(jnp.asarray, (rng.normal(size=(batch, size)), rng.normal(size=(batch, size)), below))
    )


def test_log_prob_equals_scipy_anywhere() -> None:
    with jax.enable_x64(True):
        parameters = parameters_of(0)
        z = np.random.default_rng(1).normal(size=(5, 3, 4))
        actual = FullGaussian(4).log_prob(parameters, jnp.asarray(z))
        for image, (mean, factor) in enumerate(zip(parameters.mean, parameters.factor, strict=True)):
            expected = scipy.stats.multivariate_normal.logpdf(z[:, image], mean, factor @ factor.T)
            np.testing.assert_allclose(actual[:, image], expected, rtol=1e-8)


def test_transform_agrees_with_log_prob_and_samples_with_the_covariance() -> None:
    with jax.enable_x64(True):
        parameters, posterior = parameters_of(0), FullGaussian(4)
        noise = jax.random.normal(jax.random.key(0), (100_000, 3, 4))
        z, log_prob = posterior.transform(parameters, noise)
        np.testing.assert_allclose(log_prob, posterior.log_prob(parameters, z), rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(z[0], parameters.mean + np.einsum("bij,bj->bi", parameters.factor, noise[0]))
        for image in range(3):
            covariance = parameters.factor[image] @ parameters.factor[image].T
            scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) / 100_000)
            # Each entry's standard error is at most sqrt(2) of this scale; 6 of them fail less than once in 10^8.
            assert np.all(np.abs(np.cov(z[:, image].T) - covariance) < 6 * np.sqrt(2) * scale)


@pytest.mark.long
def test_kl_equals_numpy_numpyro_and_monte_carlo() -> None:
    with jax.enable_x64(True):
        parameters, posterior = parameters_of(2), FullGaussian(4)
        kl = np.asarray(posterior.kl_to_standard_normal(parameters))
        for image in range(3):
            mean, covariance = parameters.mean[image], parameters.factor[image] @ parameters.factor[image].T
            expected = 0.5 * (np.trace(covariance) + mean @ mean - 4 - np.linalg.slogdet(covariance)[1])
            np.testing.assert_allclose(kl[image], expected, rtol=1e-10)
        reference = numpyro.distributions.kl_divergence(
            numpyro.distributions.MultivariateNormal(parameters.mean, scale_tril=parameters.factor),
            numpyro.distributions.MultivariateNormal(jnp.zeros(4), scale_tril=jnp.eye(4)),
        )
        np.testing.assert_allclose(kl, reference, rtol=1e-10)
        z, log_prob = posterior.transform(parameters, jax.random.normal(jax.random.key(0), (20_000, 3, 4)))
        each = np.asarray(log_prob - scipy.stats.norm.logpdf(z).sum(-1))
        assert np.all(np.abs(each.mean(0) - kl) < 5 * each.std(0) / np.sqrt(20_000))


@pytest.mark.parametrize("log_diagonal", [-30.0, 0.0, 30.0])
def test_extreme_parameters_are_finite(log_diagonal: float) -> None:
    posterior = FullGaussian(2)
    parameters = FullGaussianParameters(
        jnp.full((1, 2), 1e4), jnp.full((1, 2), log_diagonal), jnp.asarray([[[0.0, 0.0], [1e4, 0.0]]])
    )

    def total(parameters: FullGaussianParameters) -> jax.Array:
        z, log_prob = posterior.transform(parameters, jnp.ones((1, 1, 2)))
        return jnp.sum(z) + jnp.sum(log_prob) + jnp.sum(posterior.kl_to_standard_normal(parameters))

    assert all(
        bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(total))(parameters))
    )
