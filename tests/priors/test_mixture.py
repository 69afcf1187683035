"""The learned mixture against numpyro, numerical integration and its own samples."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions

from vae_jax.priors import GaussianMixture


def mixture(latents: int) -> tuple[GaussianMixture, dict]:
    rng = np.random.default_rng(0)
    params = {
        "logits": jnp.asarray(rng.normal(size=4)),
        "means": jnp.asarray(2.0 * rng.normal(size=(4, latents))),
        "logvars": jnp.asarray(rng.normal(size=(4, latents))),
    }
    return GaussianMixture(latents, components=4), {"params": params}


def test_log_prob_and_gradient_equal_numpyro_and_samples_have_the_moments() -> None:
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
        drawn = np.asarray(prior.apply(variables, jax.random.key(0), 50_000, method="sample"))
        shares = np.asarray(jax.nn.softmax(params["logits"]))
        mean = shares @ np.asarray(params["means"])
        second = shares @ np.asarray(params["means"] ** 2 + jnp.exp(params["logvars"]))
        np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * np.sqrt(second.max() / 50_000))
        np.testing.assert_allclose((drawn**2).mean(0), second, rtol=0.05)
        np.testing.assert_allclose(jax.jit(ours)(params), jax.jit(reference)(params), rtol=1e-9)
        gradients = [jax.jit(jax.grad(lambda params, f=f: jnp.sum(f(params))))(params) for f in (ours, reference)]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9), *gradients)
