"""Gaussian densities against scipy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from vae_jax.flows import ConditionalGaussian, diagonal_gaussian_log_prob, standard_normal_log_prob
from vae_jax.priors import StandardNormal


def test_densities_equal_scipy() -> None:
    rng = np.random.default_rng(0)
    mean, logvar, z = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=(5, 4, 3))
    expected = scipy.stats.norm.logpdf(z, mean, np.exp(0.5 * logvar)).sum(-1)
    with jax.enable_x64(True):
        np.testing.assert_allclose(diagonal_gaussian_log_prob(*map(jnp.asarray, (mean, logvar, z))), expected)
        np.testing.assert_allclose(standard_normal_log_prob(jnp.asarray(z)), scipy.stats.norm.logpdf(z).sum(-1))


def test_a_conditional_gaussian_is_its_layers() -> None:
    y = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3)), jnp.float32)
    module = ConditionalGaussian((6,), 2)
    params = module.init(jax.random.key(0), y)["params"]
    mean, logvar = module.apply({"params": params}, y)
    hidden = nn.tanh(y @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    np.testing.assert_allclose(mean, hidden @ params["mean"]["kernel"] + params["mean"]["bias"], rtol=1e-5)
    np.testing.assert_allclose(logvar, hidden @ params["logvar"]["kernel"] + params["logvar"]["bias"], rtol=1e-5)
    assert mean.shape == (2, 4, 2)


def test_samples_are_standard_normal() -> None:
    z = StandardNormal(4).sample(jax.random.key(0), 2000)
    # A true sampler fails with probability 0.001; the key is fixed.
    assert scipy.stats.kstest(np.asarray(z).ravel(), scipy.stats.norm.cdf).pvalue > 0.001
    assert np.abs(np.corrcoef(z.T) - np.eye(4)).max() < 0.1
