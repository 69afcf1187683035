"""The plain autoencoder: what it minimizes by hand, and that it reports no bound."""

import jax
import jax.numpy as jnp
import numpy as np
from losses import loss_of

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import init_variables
from vae_jax.objectives import Autoencoder

SHAPE = (2, 3, 1)
STDDEV = 0.7


def test_gaussian_pixels_make_it_the_squared_error() -> None:
    config = ModelConfig(
        network="mlp(hidden=())", latents=2, posterior="point_mass", likelihood=f"gaussian(stddev={STDDEV})"
    )
    model, x = build_model(config, SHAPE), np.random.default_rng(0).uniform(size=(4, *SHAPE))
    params = init_variables(model, jax.random.key(0), SHAPE)["params"]

    def loss(params: dict, seed: int):
        return loss_of(Autoencoder(), model, params, jnp.asarray(x, jnp.float32), jax.random.key(seed), jnp.int32(0))

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, terms), gradient = both(params, 0)
    assert terms.elbo is None and terms.kl is None and both(params, 1)[0][0] == value
    x, head, layer = x.reshape(4, -1), params["posterior"]["point"], params["decoder"]["Dense_0"]
    code = x @ head["kernel"] + head["bias"]
    mean = code @ layer["kernel"] + layer["bias"]
    squared = np.sum((x - mean) ** 2, axis=1)
    constant = 6 * 0.5 * np.log(2 * np.pi * STDDEV**2)
    np.testing.assert_allclose(terms.reconstruction, -squared / (2 * STDDEV**2) - constant, rtol=1e-5)
    np.testing.assert_allclose(value, -terms.reconstruction.mean(), rtol=1e-6)
    # Its gradient is that of the squared error over 2 s^2, through the code into the encoder.
    slope = (mean - x) / STDDEV**2 / 4
    np.testing.assert_allclose(gradient["decoder"]["Dense_0"]["kernel"], code.T @ slope, rtol=1e-4)
    into_encoder = x.T @ (slope @ layer["kernel"].T)
    np.testing.assert_allclose(gradient["posterior"]["point"]["kernel"], into_encoder, rtol=1e-4, atol=1e-6)
