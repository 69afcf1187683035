"""The prior of two layers against the joint Gaussian that linear layers make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from vae_jax.models import HierarchicalPrior


def test_log_prob_and_samples_equal_the_joint_gaussian() -> None:
    with jax.enable_x64(True):
        prior = HierarchicalPrior(latents=3, upper=2, hidden=())
        params = prior.init(jax.random.key(0), (jnp.zeros((1, 3)), jnp.zeros((1, 2))), method="log_prob")["params"]
        conditional = params["conditional"]
        conditional["logvar"] = {"kernel": jnp.zeros((2, 3)), "bias": jnp.asarray([0.4, -0.7, 0.1])}
        conditional["mean"]["bias"] = jnp.asarray([0.3, -0.2, 1.0])
        weights = np.asarray(conditional["mean"]["kernel"], np.float64)
        first = weights.T @ weights + np.diag(np.exp([0.4, -0.7, 0.1]))
        covariance = np.block([[first, weights.T], [weights, np.eye(2)]])
        mean = np.asarray([0.3, -0.2, 1.0, 0.0, 0.0])

        z = np.random.default_rng(0).normal(size=(4, 2, 5))
        actual = prior.apply({"params": params}, (jnp.asarray(z[..., :3]), jnp.asarray(z[..., 3:])), method="log_prob")
        np.testing.assert_allclose(actual, scipy.stats.multivariate_normal.logpdf(z, mean, covariance), rtol=1e-6)

        samples = np.concatenate(prior.apply({"params": params}, jax.random.key(1), 100_000, method="sample"), axis=-1)
        scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) / 100_000)
        assert np.all(np.abs(np.cov(samples.T) - covariance) < 6 * np.sqrt(2) * scale)
        assert np.all(np.abs(samples.mean(0) - mean) < 6 * np.sqrt(np.diag(covariance) / 100_000))
