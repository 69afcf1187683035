"""The bound's two forms, its samples, and its gradient against finite differences in float64."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from losses import assert_same_mean, binary_images, gradients, loss_of, scattered

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import Batch
from vae_jax.objectives import Elbo, elbo_terms

SHAPE = (3, 3, 1)
KEY = jax.random.key(5)
STEP = jnp.int32(0)
IMAGES = binary_images(4, SHAPE)
# Smooth, so that finite differences know no kinks.
MODEL = build_model(ModelConfig(network="mlp(hidden=(5,), activation=tanh)", latents=2), SHAPE)


def parameters() -> dict:
    return scattered(MODEL, SHAPE, 0.5)


def test_terms_are_those_of_numpy_for_the_same_noise() -> None:
    params, x = parameters(), np.asarray(IMAGES, np.float64)
    noise = np.random.default_rng(3).normal(size=(2, 4, 2))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(layer: dict, values: np.ndarray) -> np.ndarray:
        return values @ layer["kernel"] + layer["bias"]

    features = np.tanh(dense(p["encoder"]["Dense_0"], x.reshape(4, -1)))
    mean, logvar = dense(p["posterior"]["mean"], features), dense(p["posterior"]["logvar"], features)
    z = mean + np.exp(logvar / 2) * noise
    logits = dense(p["decoder"]["Dense_1"], np.tanh(dense(p["decoder"]["Dense_0"], z)))
    log_likelihood = scipy.stats.bernoulli(scipy.special.expit(logits)).logpmf(x.reshape(4, -1).astype(int)).sum(-1)
    log_q = scipy.stats.norm(mean, np.exp(logvar / 2)).logpdf(z).sum(-1)
    kl = np.mean(log_q - scipy.stats.norm.logpdf(z).sum(-1), 0)
    closed = 0.5 * np.sum(mean**2 + np.exp(logvar) - 1 - logvar, axis=-1)

    @jax.jit
    def both_forms(params: dict) -> list:
        joint = MODEL.joint({"params": params}, Batch(IMAGES), noise=jnp.asarray(noise, jnp.float32))
        return [elbo_terms(joint, analytic_kl) for analytic_kl in (False, True)]

    for terms, divergence in zip(both_forms(params), (kl, closed), strict=True):
        np.testing.assert_allclose(terms.reconstruction, log_likelihood.mean(0), rtol=1e-4)
        np.testing.assert_allclose(terms.kl, divergence, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(terms.elbo, log_likelihood.mean(0) - divergence, rtol=1e-4)


def for_many_keys(num_samples: int, analytic_kl: bool) -> tuple[np.ndarray, np.ndarray]:
    keys = jax.random.split(jax.random.key(num_samples + analytic_kl), 5000)
    values, slopes = gradients(Elbo(num_samples, analytic_kl), MODEL, parameters(), IMAGES, keys)
    return values, np.concatenate(list(slopes.values()), axis=1)


@pytest.mark.long
def test_both_forms_have_one_expectation_and_more_samples_shrink_the_variance() -> None:
    (values, slopes), (analytic, other_slopes) = for_many_keys(1, False), for_many_keys(1, True)
    assert_same_mean(slopes, other_slopes)
    ten, _ = for_many_keys(10, False)
    for others in (analytic, ten):
        error = np.sqrt((values.var() + others.var()) / 5000)
        assert abs(values.mean() - others.mean()) < 4 * error < 0.4
    # Ratios of variances of 5,000 values have a relative error of about 3%, more with heavy tails.
    assert 8 < values.var() / ten.var() < 12.5


@pytest.mark.long
@pytest.mark.smoke
@pytest.mark.parametrize("analytic_kl", [True, False])
def test_gradient_is_that_of_central_differences(analytic_kl: bool) -> None:
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), parameters())
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        x, objective = jnp.asarray(IMAGES, jnp.float64), Elbo(2, analytic_kl)

        @jax.jit
        def surrogate(flat: jax.Array) -> jax.Array:
            return loss_of(objective, MODEL, unravel(flat), x, KEY, STEP)[0]

        gradient, step = jax.jit(jax.grad(surrogate))(flat), 1e-5
        assert gradient.dtype == jnp.float64
        shifts = step * jnp.eye(len(flat))
        ahead, behind = jax.lax.map(surrogate, flat + shifts), jax.lax.map(surrogate, flat - shifts)
        np.testing.assert_allclose(gradient, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


def test_extreme_logits_leave_bound_and_gradient_finite() -> None:
    params = jax.tree.map(jnp.asarray, parameters())
    bias = params["decoder"]["Dense_1"]["bias"]
    params["decoder"]["Dense_1"]["bias"] = jnp.where(jnp.arange(bias.size) % 2 == 0, 1e4, -1e4)
    bound = jax.jit(jax.value_and_grad(lambda p: loss_of(Elbo(), MODEL, p, IMAGES, KEY, STEP)[0]))
    surrogate, gradient = bound(params)
    assert np.isfinite(surrogate) and float(surrogate) > 1e3
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
