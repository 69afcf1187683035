"""The two kinds of grid that several verbs make."""

import jax
import numpy as np

from vae_jax.data import Split
from vae_jax.keys import Stream, stream_key
from vae_jax.pictures import grid, side_by_side
from vae_jax.vae import VAE, Params, apply

SHOWS = ("mean", "sample")
_COLUMNS = 8


def sample_images(model: VAE, params: Params, num_images: int, seed: int, show: str) -> np.ndarray:
    """Images of latents drawn from the prior.

    Args:
        model: The model.
        params: Its parameters.
        num_images: How many.
        seed: What they are drawn from.
        show: `mean` of p(x|z), which for binary pixels is their probability, or a `sample` of it.

    Returns:
        `float32[N, H, W, C]`.
    """
    key = jax.random.key(seed)
    z = apply(model, params, "sample_prior", stream_key(key, Stream.SAMPLES, 0), num_images)
    return decoded(model, params, z, key, show)


def decoded(model: VAE, params: Params, z: jax.Array, key: jax.Array, show: str) -> np.ndarray:
    """The mean of p(x|z), or a draw from it."""
    if show == "mean":
        return np.asarray(jax.jit(lambda z: apply(model, params, "decode_mean", z))(z))
    return np.asarray(apply(model, params, "decode_sample", z, stream_key(key, Stream.SAMPLES, 1)))


def sample_grid(model: VAE, params: Params, num_images: int, seed: int, show: str) -> np.ndarray:
    """A picture of `sample_images`."""
    return grid(sample_images(model, params, num_images, seed, show), _COLUMNS)


def reconstruction_grid(model: VAE, params: Params, split: Split, num_images: int, show: str, seed: int) -> np.ndarray:
    """A picture of the first images of a split, each left of its reconstruction from the posterior mean."""
    originals = np.asarray(split.images[:num_images], np.float32) / split.max_value
    z = apply(model, params, "posterior_mean", originals)
    return side_by_side(originals, decoded(model, params, z, jax.random.key(seed), show), _COLUMNS // 2)
