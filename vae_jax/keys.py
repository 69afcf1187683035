"""Randomness as a function of (seed, stream, step).

No key is carried in a state and none is consumed twice: whoever needs noise names the stream and the
step (or the image) that it belongs to. A run that is killed and started again, or one on more devices,
therefore draws the same numbers.
"""

import enum

import jax
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
