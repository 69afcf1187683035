"""The RealNVP prior: inverse, dense Jacobian, integral, samples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.priors import RealNVP


@functools.partial(jax.jit, static_argnums=(0, 2))
def run(prior: RealNVP, variables: dict, method: str, value: jax.Array) -> jax.Array:
    return prior.apply(variables, value, method=method)


def scattered(latents: int, scale: float) -> tuple[RealNVP, dict]:
    prior = RealNVP(latents, flows=4, hidden=(8,))
    initialize = jax.jit(functools.partial(prior.init, method="log_prob"))
    variables = initialize(jax.random.key(0), jnp.zeros((1, latents)))
    rng = np.random.default_rng(1)
    return prior, jax.tree.map(lambda leaf: jnp.asarray(leaf + scale * rng.normal(size=leaf.shape)), variables)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(2).normal(size=shape))


def test_a_fresh_prior_is_the_standard_normal() -> None:
    prior, variables = scattered(3, 0.0)
    z = normal(4, 2, 3)
    log_prob = run(prior, variables, "log_prob", z)
    np.testing.assert_allclose(log_prob, scipy.stats.norm.logpdf(z).sum(-1), rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("latents", [1, 5])
def test_inverse_and_log_prob(latents: int) -> None:
    with jax.enable_x64(True):
        prior, variables = scattered(latents, 0.7)
        u = normal(6, latents)
        z = run(prior, variables, "forward", u)
        back, log_det = run(prior, variables, "inverse", z)
        np.testing.assert_allclose(back, u, atol=1e-9)
        forward = jax.jacobian(lambda u: run(prior, variables, "forward", u))
        _, expected = np.linalg.slogdet(jax.jit(jax.vmap(forward))(u))
        np.testing.assert_allclose(log_det, -expected, rtol=1e-7, atol=1e-9)
        log_prob = run(prior, variables, "log_prob", z)
        np.testing.assert_allclose(log_prob, scipy.stats.norm.logpdf(u).sum(-1) - expected, rtol=1e-7)
        # Every component is moved.
        assert np.all(np.max(np.abs(np.asarray(z - u)), axis=0) > 1e-3)
