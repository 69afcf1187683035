"""Planar and inverse autoregressive posteriors: the density of what they draw."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.posteriors import IAF, PlanarFlow

FAMILIES = {
    "planar": lambda latents: PlanarFlow(latents, flows=3),
    "iaf": lambda latents: IAF(latents, flows=3, hidden=(8,)),
}
families = pytest.mark.parametrize("family", FAMILIES)


def both(posterior: nn.Module, features: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    return posterior.transform(posterior(features), noise)


@functools.partial(jax.jit, static_argnums=0)
def run(posterior: nn.Module, variables: dict, features: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    return posterior.apply(variables, features, noise, method=both)


def draw_one(posterior: nn.Module, variables: dict, features: jax.Array, noise: jax.Array) -> jax.Array:
    """z of one image and one sample."""
    return run(posterior, variables, features[None], noise[None, None])[0][0, 0]


jacobians = jax.jit(jax.vmap(jax.jacobian(draw_one, 3), (None, None, None, 0)), static_argnums=0)


def scattered(posterior: nn.Module, num_features: int, scale: float, dtype: str = "float64") -> dict:
    """Parameters away from where they start, where flows are still the identity."""
    noise = jnp.zeros((1, 1, posterior.noise_size))
    initialize = jax.jit(functools.partial(posterior.init, method=both))
    variables = initialize(jax.random.key(0), jnp.zeros((1, num_features)), noise)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf + scale * rng.normal(size=leaf.shape), dtype), variables)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(2).normal(size=shape))


@pytest.mark.long
@families
@pytest.mark.parametrize("latents", [1, 4])
def test_log_prob_is_that_of_the_dense_jacobian(family: str, latents: int) -> None:
    with jax.enable_x64(True):
        posterior = FAMILIES[family](latents)
        # Larger steps from the identity make Jacobians that a dense determinant can't resolve.
        variables = scattered(posterior, 3, 0.4)
        features = normal(2, 3)
        noise = normal(5, 2, latents)
        _, log_prob = run(posterior, variables, features, noise)
        for image in range(2):
            _, log_det = np.linalg.slogdet(jacobians(posterior, variables, features[image], noise[:, image]))
            expected = scipy.stats.norm.logpdf(noise[:, image]).sum(-1) - log_det
            np.testing.assert_allclose(log_prob[:, image], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.long
@families
def test_density_of_one_component_integrates_to_one(family: str) -> None:
    with jax.enable_x64(True):
        posterior = FAMILIES[family](1)
        noise = jnp.linspace(-9.0, 9.0, 4001)[:, None, None]
        variables = scattered(posterior, 3, 1.0)
        z, log_prob = run(posterior, variables, jnp.ones((1, 3)), noise)
        assert np.all(np.diff(z[:, 0, 0]) > 0)  # One to one.
        np.testing.assert_allclose(np.trapezoid(np.exp(log_prob[:, 0]), z[:, 0, 0]), 1.0, atol=1e-4)


@pytest.mark.long
def test_the_order_is_reversed_between_autoregressive_flows() -> None:
    """With one flow z_1 depends on noise_1 alone; a second one sees the components from the other end."""
    for flows, upper_is_zero in ((1, True), (2, False)):
        posterior = IAF(3, flows=flows, hidden=(12,))
        variables = scattered(posterior, 2, 1.0, "float32")

        noise = jnp.asarray([[0.3, -0.2, 0.5]])
        jacobian = np.asarray(jacobians(posterior, variables, jnp.ones(2), noise))[0]
        assert np.all(jacobian[np.triu_indices(3, 1)] == 0.0) == upper_is_zero


@pytest.mark.long
@families
@pytest.mark.parametrize("size", [0.0, 30.0])
def test_extreme_features_are_finite(family: str, size: float) -> None:
    posterior = FAMILIES[family](3)
    variables = scattered(posterior, 3, 0.5, "float32")

    def total(variables: dict) -> jax.Array:
        z, log_prob = run(posterior, variables, jnp.full((2, 3), size), jnp.full((1, 2, 3), 5.0))
        return jnp.sum(z) + jnp.sum(log_prob)

    assert all(
        bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(total))(variables))
    )
