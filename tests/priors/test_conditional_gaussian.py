"""The prior that depends on the context: its density against scipy, its samples, where it can be used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import init_variables
from vae_jax.priors import ConditionalGaussianPrior

CONTEXT = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
PRIOR = ConditionalGaussianPrior(3, hidden=(5,))


def moved(scale: float) -> dict:
    fresh = PRIOR.init(jax.random.key(0), jnp.zeros((4, 3)), jnp.asarray(CONTEXT), method="log_prob")
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: leaf + scale * rng.normal(size=leaf.shape).astype(np.float32), fresh)


def by_hand(variables: dict) -> tuple[np.ndarray, np.ndarray]:
    layers = variables["params"]["given"]
    hidden = np.tanh(CONTEXT @ layers["Dense_0"]["kernel"] + layers["Dense_0"]["bias"])
    mean, logvar = (hidden @ layers[name]["kernel"] + layers[name]["bias"] for name in ("mean", "logvar"))
    return mean, np.exp(0.5 * logvar)


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_density_is_that_of_scipy(scale: float) -> None:
    variables, z = moved(scale), np.random.default_rng(2).normal(size=(6, 4, 3)).astype(np.float32)
    found = PRIOR.apply(variables, jnp.asarray(z), jnp.asarray(CONTEXT), method="log_prob")
    mean, stddev = (0.0, 1.0) if not scale else by_hand(variables)
    np.testing.assert_allclose(found, scipy.stats.norm.logpdf(z, mean, stddev).sum(-1), rtol=1e-5)


def test_samples_have_mean_and_width_of_their_context() -> None:
    variables, count = moved(0.5), 20_000
    context = jnp.repeat(jnp.asarray(CONTEXT), count, axis=0)
    z = PRIOR.apply(variables, jax.random.key(0), 4 * count, context, method="sample")
    mean, stddev = by_hand(variables)
    z = np.asarray(z).reshape(4, count, 3)
    np.testing.assert_array_less(np.abs(z.mean(axis=1) - mean), 5 * stddev / np.sqrt(count))
    np.testing.assert_allclose(z.std(axis=1), stddev, rtol=0.03)
    assert np.ptp(mean, axis=0).min() > 0.1


def test_prior_of_a_model_sees_the_class() -> None:
    config = ModelConfig(
        network="mlp(hidden=(4,))", prior="conditional_gaussian(hidden=(4,))", latents=2, conditional=True
    )
    model = build_model(config, (2, 2, 1), context_size=3)
    variables = jax.tree.map(lambda leaf: leaf + 0.5, init_variables(model, jax.random.key(0), (2, 2, 1)))
    one_hot = jnp.asarray([[0.0, 0.0, 1.0]])
    z = jnp.ones((1, 2))
    of_class, of_numbers, of_other = (
        model.log_prior(variables, z, told) for told in (jnp.array([2]), one_hot, jnp.array([1]))
    )
    np.testing.assert_allclose(of_class, of_numbers, rtol=1e-6)
    assert np.abs(of_class - of_other) > 1e-4
