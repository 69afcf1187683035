"""The bound's two forms, its samples, and its gradient against finite differences in float64."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from losses import loss_of

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import Batch, init_variables
from vae_jax.objectives import Elbo, elbo_terms

SHAPE = (3, 3, 1)
KEY = jax.random.key(5)
STEP = jnp.int32(0)
# Smooth, so that finite differences know no kinks.
MODEL = build_model(ModelConfig(network="mlp(hidden=(5,), activation=tanh)", latents=2), SHAPE)


def images(count: int = 4) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 2, (count, *SHAPE)), jnp.float32)


def parameters():
    """Far enough from the start that nothing is close to zero."""
    params = init_variables(MODEL, jax.random.key(0), SHAPE)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.5 * rng.normal(size=leaf.shape), jnp.float32), params)


def test_terms_are_those_of_numpy_for_the_same_noise() -> None:
    params, x = parameters(), np.asarray(images(), np.float64)
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
        joint = MODEL.joint({"params": params}, Batch(images()), noise=jnp.asarray(noise, jnp.float32))
        return [elbo_terms(joint, analytic_kl) for analytic_kl in (False, True)]

    for terms, divergence in zip(both_forms(params), (kl, closed), strict=True):
        np.testing.assert_allclose(terms.reconstruction, log_likelihood.mean(0), rtol=1e-4)
        np.testing.assert_allclose(terms.kl, divergence, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(terms.elbo, log_likelihood.mean(0) - divergence, rtol=1e-4)


def gradients(analytic_kl: bool, num_keys: int, num_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The bound and its gradient in all parameters, for independent keys."""
    objective, params, x = Elbo(num_samples, analytic_kl), parameters(), images()

    def one(key):
        (surrogate, _), gradient = jax.value_and_grad(
            lambda p: loss_of(objective, MODEL, p, x, key, STEP), has_aux=True
        )(params)
        return surrogate, jax.flatten_util.ravel_pytree(gradient)[0]

    values, found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(num_samples + analytic_kl), num_keys))
    return np.asarray(values, np.float64), np.asarray(found, np.float64)


@pytest.mark.long
def test_both_forms_have_one_expectation_and_one_expected_gradient() -> None:
    (values, slopes), (other_values, other_slopes) = gradients(True, 5000), gradients(False, 5000)
    error = np.sqrt((values.var() + other_values.var()) / 5000)
    assert abs(values.mean() - other_values.mean()) < 4 * error < 0.4
    errors = np.sqrt((slopes.var(0) + other_slopes.var(0)) / 5000) + 1e-6
    scores = (slopes.mean(0) - other_slopes.mean(0)) / errors
    # About 100 scores, strongly dependent: none is beyond 4.5 and they are not larger than one on average.
    assert np.abs(scores).max() < 4.5
    assert np.mean(scores**2) < 2.5


@pytest.mark.long
def test_more_samples_leave_the_mean_and_shrink_the_variance() -> None:
    one, ten = gradients(False, 4000)[0], gradients(False, 4000, num_samples=10)[0]
    assert abs(one.mean() - ten.mean()) < 4 * np.sqrt((one.var() + ten.var()) / 4000)
    # Ratios of variances of 4,000 values have a relative error of about 3%, more with heavy tails.
    assert 8 < one.var() / ten.var() < 12.5


@pytest.mark.long
@pytest.mark.smoke
@pytest.mark.parametrize("analytic_kl", [True, False])
def test_gradient_is_that_of_central_differences(analytic_kl: bool) -> None:
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), parameters())
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        x, objective = jnp.asarray(images(), jnp.float64), Elbo(2, analytic_kl)

        @jax.jit
        def surrogate(flat: jax.Array) -> jax.Array:
            return loss_of(objective, MODEL, unravel(flat), x, KEY, STEP)[0]

        gradient, step = jax.jit(jax.grad(surrogate))(flat), 1e-5
        assert gradient.dtype == jnp.float64
        shifts = step * jnp.eye(len(flat))
        ahead, behind = jax.lax.map(surrogate, flat + shifts), jax.lax.map(surrogate, flat - shifts)
        np.testing.assert_allclose(gradient, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


def test_extreme_logits_leave_bound_and_gradient_finite() -> None:
    params = parameters()
    bias = params["decoder"]["Dense_1"]["bias"]
    params["decoder"]["Dense_1"]["bias"] = jnp.where(jnp.arange(bias.size) % 2 == 0, 1e4, -1e4)
    bound = jax.jit(jax.value_and_grad(lambda p: loss_of(Elbo(), MODEL, p, images(), KEY, STEP)[0]))
    surrogate, gradient = bound(params)
    assert np.isfinite(surrogate) and float(surrogate) > 1e3
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
