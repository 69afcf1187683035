"""Divides a data set at random, always the same way, and its fingerprint."""

import hashlib
from typing import Any

import numpy as np

from vae_jax.errors import UserError
from vae_jax.escaping import counted


def fingerprint(*arrays: Any) -> str:
    """Digest of the contents, shapes and types of the arrays (SHA-256, first 16 hex digits)."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none")
            continue
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def split_indices(num_images: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides `range(num_images)` at random into a larger and a smaller part.

    Args:
        num_images: How many there are to divide.
        fraction: Share of the smaller part, in [0, 1); any positive share takes at least one image.
        seed: Seed of the division.

    Returns:
        Sorted indices of the larger and of the smaller part; together each index once.

    Raises:
        UserError: If the larger part would be empty.
    """
    smaller = max(1, round(num_images * fraction)) if fraction > 0 else 0
    if smaller >= num_images:
        raise UserError(
            f"holding out {smaller} of {counted(num_images, 'image')} leaves none to train on; use more images, or a "
            "smaller data.test_fraction or data.validation_fraction"
        )
    # Sorting raw generator output keeps the draw the same in every version of NumPy.
    order = np.argsort(np.random.PCG64(seed).random_raw(num_images), kind="stable")
    return np.sort(order[smaller:]), np.sort(order[:smaller])
