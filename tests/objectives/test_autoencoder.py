"""The plain autoencoder: what it minimizes by hand, and that it reports no bound."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from losses import loss_of

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import init_variables
from vae_jax.objectives import Autoencoder

SHAPE = (2, 3, 1)
STDDEV = 0.7


def images(likelihood: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    grey = rng.uniform(size=(4, *SHAPE))
    return (grey > 0.5).astype(np.float64) if likelihood == "bernoulli" else grey


@functools.cache
def evaluated(likelihood: str, seed: int = 0):
    """Parameters, value and terms, and gradient."""
    config = ModelConfig(
        network="mlp(hidden=())",
        latents=2,
        posterior="point_mass",
        likelihood=f"gaussian(stddev={STDDEV})" if likelihood == "gaussian" else likelihood,
    )
    model = build_model(config, SHAPE)
    params, x = init_variables(model, jax.random.key(0), SHAPE)["params"], jnp.asarray(images(likelihood), jnp.float32)
    loss = jax.value_and_grad(
        lambda params: loss_of(Autoencoder(), model, params, x, jax.random.key(seed), jnp.int32(0)), has_aux=True
    )
    return jax.device_get((params, *jax.jit(loss)(params)))


def by_hand(params: dict, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The code, and the decoder's numbers."""
    code = x.reshape(4, -1) @ params["posterior"]["point"]["kernel"] + params["posterior"]["point"]["bias"]
    return code, code @ params["decoder"]["Dense_0"]["kernel"] + params["decoder"]["Dense_0"]["bias"]


def test_gaussian_pixels_make_it_the_squared_error() -> None:
    params, (loss, terms), gradient = evaluated("gaussian")
    x = images("gaussian")
    code, mean = by_hand(params, x)
    squared = np.sum((x.reshape(4, -1) - mean) ** 2, axis=1)
    constant = 6 * 0.5 * np.log(2 * np.pi * STDDEV**2)
    np.testing.assert_allclose(terms.reconstruction, -squared / (2 * STDDEV**2) - constant, rtol=1e-5)
    np.testing.assert_allclose(loss, -terms.reconstruction.mean(), rtol=1e-6)
    # Its gradient is that of the squared error over 2 s^2, through the code into the encoder.
    slope = (mean - x.reshape(4, -1)) / STDDEV**2 / 4
    np.testing.assert_allclose(gradient["decoder"]["Dense_0"]["kernel"], code.T @ slope, rtol=1e-4)
    into_encoder = x.reshape(4, -1).T @ (slope @ params["decoder"]["Dense_0"]["kernel"].T)
    np.testing.assert_allclose(gradient["posterior"]["point"]["kernel"], into_encoder, rtol=1e-4, atol=1e-6)


def test_binary_pixels_make_it_the_cross_entropy() -> None:
    params, (loss, terms), _ = evaluated("bernoulli")
    x = images("bernoulli").reshape(4, -1)
    probability = scipy.special.expit(by_hand(params, images("bernoulli"))[1])
    entropy = -np.sum(x * np.log(probability) + (1 - x) * np.log(1 - probability), axis=1)
    np.testing.assert_allclose(terms.reconstruction, -entropy, rtol=1e-5)
    np.testing.assert_allclose(loss, entropy.mean(), rtol=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_there_is_no_bound_and_no_chance(likelihood: str) -> None:
    _, (loss, terms), _ = evaluated(likelihood)
    assert terms.elbo is None and terms.kl is None
    assert float(evaluated(likelihood, seed=1)[1][0]) == float(loss)
