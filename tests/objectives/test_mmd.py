"""Maximum mean discrepancy against double loops, its own null, and two Gaussians' closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses import loss_of

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import Batch, init_variables
from vae_jax.noise import standard_normal
from vae_jax.objectives import Mmd, maximum_mean_discrepancy

SHAPE = (2, 2, 1)
KEY = jax.random.key(2)


@functools.cache
def posed(posterior: str):
    """A small model, fresh parameters, six images."""
    model = build_model(ModelConfig(network="mlp(hidden=(3,))", latents=2, posterior=posterior), SHAPE)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (6, *SHAPE)), jnp.float32)
    return model, init_variables(model, jax.random.key(0), SHAPE)["params"], x


@functools.cache
def draws(posterior: str) -> tuple[np.ndarray, np.ndarray]:
    """What the objective draws with `KEY`: z of the images, and as many from the prior."""
    model, params, x = posed(posterior)
    noise_key, prior_key = jax.random.split(KEY)
    noise = standard_normal(noise_key, (1, 6, model.noise_size))
    z = jax.jit(lambda params: model.joint({"params": params}, Batch(x), noise=noise).z[0])(params)
    return np.asarray(z, np.float64), np.asarray(jax.random.normal(prior_key, (6, 2)), np.float64)


def by_loops(z: np.ndarray, prior: np.ndarray) -> float:
    """Gretton et al. 2012, lemma 6, with `exp(-|a - b|^2 / 2D)`, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-np.sum((a - b) ** 2) / (2 * len(a))))

    within = sum(kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j)
    prior_within = sum(kernel(a, b) for i, a in enumerate(prior) for j, b in enumerate(prior) if i != j)
    between = sum(kernel(a, b) for a in z for b in prior)
    n, m = len(z), len(prior)
    return within / (n * (n - 1)) + prior_within / (m * (m - 1)) - 2 * between / (n * m)


def population(mean: np.ndarray, variances: np.ndarray) -> float:
    """Squared MMD of N(mean, diag(variances)) to a standard normal, for the same kernel of variance D.

    The expectation of a Gaussian kernel of variance w under a difference `N(m, v)` is, for each component,
    `sqrt(w / (w + v)) exp(-m^2 / (2 (w + v)))`.
    """
    width = float(len(mean))

    def expected(m: np.ndarray, v: np.ndarray) -> float:
        return float(np.prod(np.sqrt(width / (width + v)) * np.exp(-(m**2) / (2 * (width + v)))))

    nothing, ones = np.zeros_like(mean), np.ones_like(mean)
    return expected(nothing, 2 * variances) + expected(nothing, 2 * ones) - 2 * expected(mean, variances + ones)


def many(mean: np.ndarray, variances: np.ndarray, size: int = 32, repeats: int = 4000) -> np.ndarray:
    """Independent estimates from samples of N(mean, diag(variances)) and of a standard normal."""
    rng = np.random.default_rng(0)
    z = mean + np.sqrt(variances) * rng.normal(size=(repeats, size, len(mean)))
    prior = rng.normal(size=(repeats, size, len(mean)))
    found = jax.jit(jax.vmap(maximum_mean_discrepancy))(jnp.asarray(z), jnp.asarray(prior))
    return np.asarray(found, np.float64)


@pytest.mark.parametrize(
    ("mean", "variances"), [([0.5, -0.3, 0.0], [1.0, 1.0, 1.0]), ([0.0, 0.0], [1.0, 1.0]), ([2.0], [0.3])]
)
def test_expectation_is_the_closed_form_of_two_gaussians(mean: list[float], variances: list[float]) -> None:
    expected = population(np.array(mean), np.array(variances))
    estimates = many(np.array(mean), np.array(variances))
    error = estimates.std() / np.sqrt(len(estimates))
    # A biased estimate (with the pairs of a point with itself) would be off by more than a hundredth, forty errors.
    assert abs(estimates.mean() - expected) < 4 * error < max(0.2 * expected, 2e-3)


@pytest.mark.long
@pytest.mark.parametrize(("alpha", "weight"), [(1.0, 500.0), (0.3, 10.0)])
def test_loss_is_equation_6_of_infovae(alpha: float, weight: float) -> None:
    model, params, x = posed("diagonal_gaussian")
    loss, terms = jax.jit(lambda params: loss_of(Mmd(alpha, weight), model, params, x, KEY, jnp.int32(0)))(params)
    discrepancy = by_loops(*draws("diagonal_gaussian"))
    expected = (1 - alpha) * np.mean(terms.kl) + (alpha + weight - 1) * discrepancy - np.mean(terms.reconstruction)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(terms.elbo, terms.reconstruction - terms.kl, rtol=1e-5)


@pytest.mark.long
def test_a_point_mass_is_a_wasserstein_autoencoder_without_a_bound() -> None:
    model, params, x = posed("point_mass")
    loss, terms = jax.jit(lambda params: loss_of(Mmd(1.0, 500.0), model, params, x, KEY, jnp.int32(0)))(params)
    discrepancy = by_loops(*draws("point_mass"))
    np.testing.assert_allclose(loss, 500.0 * discrepancy - np.mean(terms.reconstruction), rtol=1e-4)
    assert terms.elbo is None and terms.kl is None
