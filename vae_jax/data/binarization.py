"""From integer pixels to what a likelihood is a density of."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt8

from vae_jax.keys import Stream
from vae_jax.noise import uniform_16bit

_IMAGES_AT_ONCE = 4096


def scaled(images: UInt8[Array, "b h w c"], max_value: int) -> Float[Array, "b h w c"]:
    """Pixels as float32 in [0, 1]; 0 or 1 for images that are binary already (`max_value` 1)."""
    return images.astype(jnp.float32) / max_value


def dynamic_binarization(
    images: UInt8[Array, "b h w c"], max_value: int, key: Key[Array, ""]
) -> Float[Array, "b h w c"]:
    """A fresh Bernoulli draw of every pixel, `P(1) = pixel / max_value` to within 2^-17.

    Draws of 16 bits are enough for pixels of 8, and four of them come out of one hash. Black stays 0 and
    white stays 1.

    Args:
        images: Pixels from 0 to `max_value`.
        max_value: Largest value a pixel can take, at most 255.
        key: What this draw, and no other, is made from.

    Returns:
        Images of zeros and ones.

    Source:
        Salakhutdinov & Murray 2008; Burda et al., arXiv 1509.00519, section 5.
    """
    flat = images.reshape(images.shape[0], -1).astype(jnp.int32)
    draws = uniform_16bit(key, *flat.shape)
    # The draw stands for the middle of its interval: (draw + 1/2) / 2^16 < pixel / max_value.
    binary = ((2 * draws + 1) * max_value < flat << 17).astype(jnp.float32)
    # Otherwise XLA draws anew for the encoder, the likelihood and the gradient of each.
    return jax.lax.optimization_barrier(binary).reshape(images.shape)


def binarized_once(
    images: UInt8[np.ndarray, "n h w c"], max_value: int, seed: int, part: int
) -> UInt8[np.ndarray, "n h w c"]:
    """One Bernoulli draw of every pixel that is kept, so that every run is measured on the same images.

    Args:
        images: Pixels from 0 to `max_value`.
        max_value: Largest value a pixel can take.
        seed: `data.seed`, not the seed of a run.
        part: A number that tells the splits apart.

    Returns:
        Images of zeros and ones; the first images stay the same when later ones are cut off.
    """
    generator = np.random.PCG64(np.random.SeedSequence([seed, Stream.FIXED_BINARIZATION, part]))
    binary = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        chunk = images[start : start + _IMAGES_AT_ONCE]
        uniform = (generator.random_raw(chunk.size) >> np.uint64(11)) * 2.0**-53
        binary[start : start + _IMAGES_AT_ONCE] = uniform.reshape(chunk.shape) * max_value < chunk
    return binary


def thresholded(images: UInt8[np.ndarray, "n h w c"], max_value: int) -> UInt8[np.ndarray, "n h w c"]:
    """1 where a pixel is above half of `max_value`, else 0."""
    return (2 * images.astype(np.uint16) > max_value).astype(np.uint8)
