"""From integer pixels to what a likelihood is a density of."""

import itertools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped, UInt8

from vae_jax.keys import Stream
from vae_jax.noise import uniform_16bit

_IMAGES_AT_ONCE = 4096


def scaled(images: Shaped[Array, "b *event"], max_value: int) -> Float[Array, "b *event"]:
    """Values as float32: levels in [0, 1]; as they are with `max_value` 1."""
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
    images: UInt8[np.ndarray, "n *event"],
    max_value: int,
    seed: int,
    part: int,
    numbers: Int[np.ndarray, "n"] | None = None,
) -> UInt8[np.ndarray, "n *event"]:
    """One Bernoulli draw of every pixel that is kept, so that every run is measured on the same images.

    Args:
        images: Pixels from 0 to `max_value`.
        max_value: Largest value a pixel can take.
        seed: `data.seed`, not the seed of a run.
        part: A number that tells the splits apart.
        numbers: Which image of the split each of these is; None where these are its first ones, in order.

    Returns:
        Images of zeros and ones; those of an image depend on its number, not on which others are there.
    """
    generator = np.random.PCG64(np.random.SeedSequence([seed, Stream.FIXED_BINARIZATION, part]))
    start = generator.state
    numbers = np.arange(len(images)) if numbers is None else numbers
    binary = np.empty(images.shape, np.uint8)
    for run in _consecutive(numbers):
        chunk = images[run]
        generator.state = start
        generator.advance(int(numbers[run.start]) * math.prod(images.shape[1:]))
        uniform = (generator.random_raw(chunk.size) >> np.uint64(11)) * 2.0**-53
        binary[run] = uniform.reshape(chunk.shape) * max_value < chunk
    return binary


def _consecutive(numbers: Int[np.ndarray, "n"]) -> Iterator[slice]:
    """Slices of numbers that follow each other, none longer than what is drawn at once."""
    jumps = np.flatnonzero(np.diff(numbers) != 1) + 1
    for first, last in itertools.pairwise([0, *jumps.tolist(), len(numbers)]):
        for start in range(first, last, _IMAGES_AT_ONCE):
            yield slice(start, min(start + _IMAGES_AT_ONCE, last))


def thresholded(
    images: UInt8[np.ndarray, "n *event"], max_value: int, numbers: Int[np.ndarray, "n"] | None = None
) -> UInt8[np.ndarray, "n *event"]:
    """1 where a pixel is above half of `max_value`, else 0; which image it is makes no difference."""
    return (2 * images.astype(np.uint16) > max_value).astype(np.uint8)
