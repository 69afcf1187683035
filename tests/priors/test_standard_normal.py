"""The standard normal prior against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from vae_jax.priors import StandardNormal, standard_normal_log_prob


def test_density_is_scipys() -> None:
    z = np.random.default_rng(0).normal(size=(4, 5, 3), scale=3).astype(np.float32)
    expected = scipy.stats.norm.logpdf(z.astype(np.float64)).sum(-1)
    np.testing.assert_allclose(standard_normal_log_prob(jnp.asarray(z)), expected, rtol=1e-6)
    np.testing.assert_allclose(StandardNormal(3).log_prob(jnp.asarray(z)), expected, rtol=1e-6)


def test_gradient_points_to_the_origin() -> None:
    z = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
    np.testing.assert_allclose(jax.grad(lambda z: jnp.sum(standard_normal_log_prob(z)))(z), -z, rtol=1e-6)


def test_samples_are_standard_normal() -> None:
    z = StandardNormal(4).sample(jax.random.key(0), 2000)
    assert z.shape == (2000, 4)
    # A true sampler fails each with probability 0.001; the key is fixed.
    assert scipy.stats.kstest(np.asarray(z).ravel(), scipy.stats.norm.cdf).pvalue > 0.001
    assert np.abs(np.corrcoef(z.T) - np.eye(4)).max() < 0.1
