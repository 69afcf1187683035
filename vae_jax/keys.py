"""Randomness as a function of (seed, stream, step).

No key is carried in a state and none is consumed twice: whoever needs noise names the stream and the
step (or the image) that it belongs to. A run that is killed and started again, or one on more devices,
therefore draws the same numbers.
"""

import enum

import jax
import numpy as np
from jaxtyping import Array, Int, Key


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
