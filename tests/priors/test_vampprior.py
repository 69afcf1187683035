"""The VampPrior against a mixture written out with scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.posteriors import DiagonalGaussian, FullGaussian, FullGaussianParameters, GaussianParameters
from vae_jax.priors import Components, VampPrior


def components(full: bool) -> tuple[Components, list[scipy.stats._multivariate.multivariate_normal_frozen]]:
    """Three posteriors of two latents, and the same from scipy."""
    rng = np.random.default_rng(0)
    mean, logs = 2.0 * rng.normal(size=(3, 2)), 0.5 * rng.normal(size=(3, 2))
    below = full * np.tril(rng.normal(size=(3, 2, 2)), -1)
    factors = below + np.exp(logs)[:, :, None] * np.eye(2)
    reference = [
        scipy.stats.multivariate_normal(center, factor @ factor.T) for center, factor in zip(mean, factors, strict=True)
    ]
    if full:
        parameters = FullGaussianParameters(*map(jnp.asarray, (mean, logs, below)))
        return Components(FullGaussian(2), parameters), reference
    return Components(DiagonalGaussian(2), GaussianParameters(jnp.asarray(mean), jnp.asarray(2.0 * logs))), reference


@pytest.mark.long
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [(), (5,), (4, 5)])
def test_log_prob_equals_scipy(full: bool, shape: tuple[int, ...]) -> None:
    with jax.enable_x64(True):
        made_of, reference = components(full)
        z = 2.0 * np.random.default_rng(1).normal(size=(*shape, 2))
        expected = np.log(np.mean([component.pdf(z) for component in reference], axis=0))
        prior = VampPrior(2, (3, 3, 1), components=3)
        variables = prior.init(jax.random.key(0), method="pseudo_inputs")
        actual = prior.apply(variables, jnp.asarray(z), made_of, method="log_prob")
        np.testing.assert_allclose(actual, expected, rtol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("full", [False, True])
def test_samples_agree_with_the_mixture(full: bool) -> None:
    made_of, reference = components(full)
    prior = VampPrior(2, (3, 3, 1), components=3)
    variables = prior.init(jax.random.key(0), method="pseudo_inputs")
    z = np.asarray(prior.apply(variables, jax.random.key(1), 100_000, made_of, method="sample"))
    means, covariances = (np.asarray([getattr(each, name) for each in reference]) for name in ("mean", "cov"))
    mean = means.mean(0)
    covariance = covariances.mean(0) + (means - mean).T @ (means - mean) / 3
    assert np.all(np.abs(z.mean(0) - mean) < 6 * np.sqrt(np.diag(covariance) / 100_000))
    np.testing.assert_allclose(np.cov(z.T), covariance, rtol=0.05, atol=0.05)
