"""The posterior of two layers against the joint Gaussian that linear layers make of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.flows import GaussianParameters
from vae_jax.models import HierarchicalPosterior


def both(posterior: HierarchicalPosterior, features: jax.Array, noise: jax.Array):
    return posterior.transform(posterior(features), noise)


def linear_posterior() -> tuple[HierarchicalPosterior, dict, np.ndarray]:
    """lower 3, upper 2, with a second variance that doesn't depend on z1; and its weights from z1 to z2."""
    posterior = HierarchicalPosterior(latents=3, upper=2, hidden=())
    params = posterior.init(jax.random.key(0), jnp.zeros((1, 4)), jnp.zeros((1, 1, 5)), method=both)["params"]
    params["second"]["logvar"] = {"kernel": jnp.zeros((3, 2)), "bias": jnp.asarray([0.4, -0.7])}
    params["second"]["mean"]["bias"] = jnp.asarray([0.3, -0.2])
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
    return posterior, {"params": params}, np.asarray(params["second"]["mean"]["kernel"])


@pytest.mark.long
def test_log_prob_equals_the_joint_gaussian() -> None:
    with jax.enable_x64(True):
        posterior, variables, weights = linear_posterior()
        rng = np.random.default_rng(0)
        mean, logvar, z = rng.normal(size=(1, 3)), rng.normal(size=(1, 3)), rng.normal(size=(6, 1, 5))
        parameters = GaussianParameters(jnp.asarray(mean), jnp.asarray(logvar))
        actual = posterior.apply(
            variables, parameters, (jnp.asarray(z[..., :3]), jnp.asarray(z[..., 3:])), method="log_prob"
        )
        first = np.diag(np.exp(logvar[0]))
        second = weights.T @ first @ weights + np.diag(np.exp([0.4, -0.7]))
        covariance = np.block([[first, first @ weights], [weights.T @ first, second]])
        joint_mean = np.concatenate([mean[0], mean[0] @ weights + np.asarray([0.3, -0.2])])
        expected = scipy.stats.multivariate_normal.logpdf(z[:, 0], joint_mean, covariance)
        np.testing.assert_allclose(actual[:, 0], expected, rtol=1e-6)
        mean = np.concatenate(posterior.apply(variables, parameters, method="mean"), axis=-1)
        np.testing.assert_allclose(mean[0], joint_mean, rtol=1e-6)


@pytest.mark.long
def test_transform_agrees_with_log_prob_and_the_dense_jacobian() -> None:
    with jax.enable_x64(True):
        posterior = HierarchicalPosterior(latents=3, upper=2, hidden=(6, 6))
        rng = np.random.default_rng(1)
        features, noise = jnp.asarray(rng.normal(size=(2, 4))), jnp.asarray(rng.normal(size=(5, 2, 5)))
        variables = jax.jit(functools.partial(posterior.init, method=both))(jax.random.key(0), features, noise)
        z, log_prob = jax.jit(functools.partial(posterior.apply, method=both))(variables, features, noise)
        parameters = posterior.apply(variables, features)
        np.testing.assert_allclose(log_prob, posterior.apply(variables, parameters, z, method="log_prob"), rtol=1e-9)

        def draw(noise: jax.Array) -> jax.Array:
            z, _ = posterior.apply(variables, features[:1], noise[None, None], method=both)
            return jnp.concatenate(z, axis=-1)[0, 0]

        _, log_det = np.linalg.slogdet(jax.jit(jax.vmap(jax.jacobian(draw)))(noise[:, 0]))
        np.testing.assert_allclose(log_prob[:, 0], scipy.stats.norm.logpdf(noise[:, 0]).sum(-1) - log_det, rtol=1e-6)
