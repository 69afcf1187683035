"""What a data source hands over: integer images, in memory or in their files, and the split that validation needs."""

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Int, UInt8

from vae_jax.data.streamed import Images, StreamedImages
from vae_jax.errors import UserError

Labels = Int[np.ndarray, "n"]
# A label beyond this is no class but some other number; each class is an entry in reports.
MOST_CLASSES = 100_000


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images of one data set, as its source has them.

    Attributes:
        name: What to call it in reports.
        train_images: `uint8[N, H, W, C]`, values in `0 .. max_value`.
        test_images: `uint8[M, H, W, C]`.
        train_labels: `int32[N]`, or None where there are no labels.
        test_labels: `int32[M]`, or None.
        max_value: The largest value a pixel can take (255 for 8-bit images, 16 for the digits).
        fingerprint: Hexadecimal digest that changes when the data changes.
        class_names: What each label stands for, where the source says so.
    """

    name: str
    train_images: Images
    test_images: UInt8[np.ndarray | StreamedImages, "m h w c"]
    train_labels: Labels | None
    test_labels: Int[np.ndarray, "m"] | None
    max_value: int
    fingerprint: str
    class_names: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels


def fingerprint(*arrays: np.ndarray | None) -> str:
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
        seed: What the division is drawn from.

    Returns:
        Sorted indices of the larger and of the smaller part; together each index once.

    Raises:
        UserError: If the larger part would be empty.
    """
    smaller = max(1, round(num_images * fraction)) if fraction > 0 else 0
    if smaller >= num_images:
        raise UserError(
            f"there {'is 1 image' if num_images == 1 else f'are {num_images} images'}, and {smaller} would be held out "
            f"({fraction:.4g} of them, but at least 1), which leaves none to train on; use more images or a smaller "
            "fraction (data.test_fraction, data.validation_fraction)"
        )
    # Sorting raw generator output keeps the draw the same in every version of NumPy.
    order = np.argsort(np.random.PCG64(seed).random_raw(num_images), kind="stable")
    return np.sort(order[smaller:]), np.sort(order[:smaller])
