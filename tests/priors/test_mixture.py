"""The learned mixture against numpyro, numerical integration and its own samples."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest

from vae_jax.priors import GaussianMixture


def mixture(latents: int) -> tuple[GaussianMixture, dict]:
    rng = np.random.default_rng(0)
    params = {
        "logits": jnp.asarray(rng.normal(size=4)),
        "means": jnp.asarray(2.0 * rng.normal(size=(4, latents))),
        "logvars": jnp.asarray(rng.normal(size=(4, latents))),
    }
    return GaussianMixture(latents, components=4), {"params": params}


def test_log_prob_and_gradient_equal_numpyro() -> None:
    with jax.enable_x64(True):
        prior, variables = mixture(3)
        z = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2, 3)))

        def reference(params: dict) -> jax.Array:
            components = numpyro.distributions.Normal(params["means"], jnp.exp(0.5 * params["logvars"])).to_event(1)
            weights = numpyro.distributions.Categorical(logits=params["logits"])
            return numpyro.distributions.MixtureSameFamily(weights, components).log_prob(z)

        def ours(params: dict) -> jax.Array:
            return prior.apply({"params": params}, z, method="log_prob")

        params = variables["params"]
        np.testing.assert_allclose(jax.jit(ours)(params), jax.jit(reference)(params), rtol=1e-9)
        gradients = [jax.jit(jax.grad(lambda params, f=f: jnp.sum(f(params))))(params) for f in (ours, reference)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9), *gradients)


@pytest.mark.long
def test_samples_agree_with_the_density() -> None:
    with jax.enable_x64(True):
        prior, variables = mixture(1)
        z = np.asarray(prior.apply(variables, jax.random.key(0), 50_000, method="sample"))[:, 0]
        axis = np.linspace(-15.0, 15.0, 5001)
        density = np.exp(prior.apply(variables, jnp.asarray(axis[:, None]), method="log_prob"))
        cumulative = np.cumsum(density) * (axis[1] - axis[0])
        distance = np.max(np.abs(np.searchsorted(np.sort(z), axis) / len(z) - cumulative))
        assert distance < 2.3 / np.sqrt(len(z)) + 0.005  # Kolmogorov: a larger one once in 20 000 keys.
