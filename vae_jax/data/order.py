"""Which images make up the batch of a step: a function of (seed, step) alone, the same in NumPy and in JAX.

The order of an epoch is a keyed bijection of indices. Any part of it can be computed by itself, without a sort and
without a table, so the compiled program and the processes that read files compute the same batches.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt32

from vae_jax.keys import Stream
from vae_jax.noise import threefry

_ROUNDS = 64

Words = UInt32[np.ndarray | Array, "..."]


def shuffled(positions: Words, num_images: int, seed: Words, epoch: Words) -> Words:
    """The images at some positions of an epoch's order.

    This is the swap-or-not shuffle. In each round `x` has the partner `(shift - x) mod N`, and `x` is the partner of
    its partner. One hashed bit, the same for both, decides whether the two change places. So each round is a
    bijection of `0 .. N - 1`, for any `N`.

    Args:
        positions: Numbers from 0 to `num_images - 1`; NumPy or JAX arrays of at least one axis.
        num_images: `N`, below 2^31.
        seed: The seed of the run; broadcasts against the positions, with as many axes.
        epoch: Which epoch, from 0; the same.

    Returns:
        Image numbers, of the broadcast shape. Over all positions of one epoch each image comes once.

    Source:
        Hoang, Morris & Rogaway, An Enciphering Scheme Based on a Card Shuffle, CRYPTO 2012.
    """
    xp = np if isinstance(positions, np.ndarray) else jnp
    count = np.uint32(num_images)
    rounds = np.arange(_ROUNDS, dtype=np.uint32).reshape(-1, *[1] * positions.ndim)
    shifts, masks = threefry((seed, np.full_like(seed, Stream.DATA_ORDER)), (epoch, rounds))
    shifts = shifts % count

    def one_round(number: int | Int[Array, ""], x: Words) -> Words:
        shift, mask = shifts[number], masks[number]
        partner = xp.where(shift < x, shift + count - x, shift - x)
        swap = _mix(xp.maximum(x, partner) ^ mask) >> 31
        return xp.where(swap == 1, partner, x)

    images = xp.broadcast_to(positions, np.broadcast_shapes(positions.shape, shifts.shape[1:]))
    if xp is jnp:
        return jax.lax.fori_loop(0, _ROUNDS, one_round, images)
    for number in range(_ROUNDS):
        images = one_round(number, images)
    return images


def batch_indices(
    seeds: UInt32[np.ndarray | Array, "r"], steps: UInt32[np.ndarray | Array, "s"], batch_size: int, num_images: int
) -> Int[np.ndarray | Array, "s r b"]:
    """Which images make up the batches of some steps.

    An epoch has `num_images // batch_size` steps. The images that don't fill a batch are left out of it, others in each
    epoch.

    Args:
        seeds: The seed of each replica.
        steps: Steps taken before each batch.
        batch_size: Images per batch, `b`.
        num_images: Training images.

    Returns:
        `int32` image numbers, in the library of the arguments.
    """
    steps = steps[:, None, None]
    steps_per_epoch = np.uint32(num_images // batch_size)
    places = np.arange(batch_size, dtype=np.uint32)
    positions = steps % steps_per_epoch * np.uint32(batch_size) + places
    return shuffled(positions, num_images, seeds[None, :, None], steps // steps_per_epoch).astype(np.int32)


def epoch_order(seed: int, epoch: int, num_images: int) -> Int[np.ndarray, "n"]:
    """The order in which an epoch visits all images: each of `range(num_images)` once."""
    positions = np.arange(num_images, dtype=np.uint32)
    order = shuffled(positions, num_images, np.array([seed], np.uint32), np.array([epoch], np.uint32))
    return np.asarray(order, np.int32)


def _mix(x: Words) -> Words:
    """Scrambles 32 bits: two rounds of multiply and shift (constants of C. Wellons' hash prospector)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
