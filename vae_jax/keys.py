"""Randomness as a function of (seed, stream, step).

No key is carried in a state and none is consumed twice: whoever needs noise names the stream and the
step (or the image) that it belongs to. A run that is killed and started again, or one on more devices,
therefore draws the same numbers.
"""

import enum

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key


class Stream(enum.IntEnum):
    """What randomness is used for. The numbers are part of the file format of a run: never reuse one."""

    PARAMETERS = 0
    DATA_ORDER = 1
    BINARIZATION = 2
    POSTERIOR_NOISE = 3
    EVALUATION = 4
    SAMPLES = 5
    SPLIT = 6
    FIXED_BINARIZATION = 7


def stream_key(root: Key[Array, ""], stream: Stream, step: int | Int[Array, ""] = 0) -> Key[Array, ""]:
    """`fold_in(fold_in(root, stream), step)`.

    Args:
        root: The key of a run, `jax.random.key(seed)`.
        stream: What the key is for.
        step: Which of the stream's keys: a training step, an epoch, 0 where there is only one.

    Returns:
        A key that no other (stream, step) shares.
    """
    return jax.random.fold_in(jax.random.fold_in(root, stream), step)


def image_keys(key: Key[Array, ""], image_ids: Int[Array, "b"]) -> Key[Array, "b"]:
    """One key per image, so that noise doesn't depend on how images are grouped.

    Args:
        key: The key of the whole evaluation.
        image_ids: The place of each image in its split.

    Returns:
        `fold_in(key, image_id)` for each image.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, image_ids)


def normal_per_image(
    key: Key[Array, ""],
    image_ids: Int[Array, "b"],
    sample_ids: Int[Array, "k"],
    size: int,
) -> Float[Array, "k b d"]:
    """Standard normal noise that is a function of (key, image, sample) alone.

    Args:
        key: The key of the whole evaluation.
        image_ids: The place of each image in its split.
        sample_ids: Which of each image's samples.
        size: Numbers per sample, `d`.

    Returns:
        Noise whose entry `[k, b]` is the same however images and samples are divided into chunks.
    """

    def one(image_key: Key[Array, ""], sample_id: Int[Array, ""]) -> Float[Array, "d"]:
        return jax.random.normal(jax.random.fold_in(image_key, sample_id), (size,), jnp.float32)

    over_images = jax.vmap(one, in_axes=(0, None))
    return jax.vmap(over_images, in_axes=(None, 0))(image_keys(key, image_ids), sample_ids)


def epoch_order(seed: int, epoch: int, num_images: int) -> Int[np.ndarray, "n"]:
    """The order in which an epoch visits the images.

    A permutation that depends on (seed, data order, epoch) alone. It is made with NumPy on the host so
    that a process without JAX, such as a data-loading worker, makes the same one.

    Args:
        seed: The seed of the run.
        epoch: Which epoch, from 0.
        num_images: How many images there are.

    Returns:
        Each of `range(num_images)` once.
    """
    entropy = np.random.SeedSequence([seed, Stream.DATA_ORDER, epoch])
    # Ranking raw generator output keeps the order the same in every version of NumPy.
    return np.argsort(np.random.PCG64(entropy).random_raw(num_images), kind="stable")
