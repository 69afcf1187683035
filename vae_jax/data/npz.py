"""Images from a local NumPy archive."""

import pathlib

import numpy as np

from vae_jax.data.archives import read_arrays
from vae_jax.data.dataset import MOST_CLASSES, Dataset, Labels, fingerprint, split_indices
from vae_jax.errors import DataError, UserError


def load_npz(path: str, test_fraction: float, seed: int) -> Dataset:
    """Reads `train_images` and `test_images`, or `images` that are divided here.

    Args:
        path: An `.npz` with `uint8` images `[N, H, W]` or `[N, H, W, C]` and, optionally, whole-number
            labels `train_labels` and `test_labels`, or `labels`.
        test_fraction: Share of `images` that is held out for testing.
        seed: What that division is drawn from.

    Returns:
        The images with four axes.

    Raises:
        UserError: If the file isn't there, isn't such an archive, its arrays aren't such images, or they don't fit the
            memory that is free.
    """
    if not path:
        raise DataError("data.source is 'npz' but no file is named", "add --config.data.path=images.npz")
    if not pathlib.Path(path).is_file():
        raise DataError(f"there is no file '{path}'", "set --config.data.path to an .npz with uint8 images")
    found = read_arrays(path, _NAMES, "an .npz of plain arrays", "write it with np.savez(path, images=...)")
    arrays = found.arrays
    if "images" in arrays:
        images = _checked_images(path, "images", arrays["images"])
        labels = checked_labels(path, "labels", arrays.get("labels"), len(images))
        train, test = split_indices(len(images), test_fraction, seed)
        parts = images[train], images[test], _take(labels, train), _take(labels, test)
    elif "train_images" in arrays and "test_images" in arrays:
        train_images = _checked_images(path, "train_images", arrays["train_images"])
        test_images = _checked_images(path, "test_images", arrays["test_images"])
        if train_images.shape[1:] != test_images.shape[1:]:
            raise UserError(
                f"'{path}': train_images are {_size(train_images)} but test_images {_size(test_images)}; "
                "bring them to one size"
            )
        parts = (
            train_images,
            test_images,
            checked_labels(path, "train_labels", arrays.get("train_labels"), len(train_images)),
            checked_labels(path, "test_labels", arrays.get("test_labels"), len(test_images)),
        )
    else:
        raise UserError(
            f"'{path}' holds {found.listed()}, but needs 'images', or 'train_images' and "
            "'test_images'; write it with np.savez(path, images=...)"
        )
    train_images, test_images, train_labels, test_labels = parts
    return Dataset(
        name=pathlib.Path(path).stem,
        train_images=train_images,
        test_images=test_images,
        train_labels=train_labels,
        test_labels=test_labels,
        max_value=255,
        fingerprint=fingerprint(*parts),
    )


_NAMES = ("images", "labels", "train_images", "train_labels", "test_images", "test_labels")


def _checked_images(path: str, name: str, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8:
        raise UserError(
            f"'{path}': {name} are {images.dtype} but must be uint8 from 0 to 255; for values in [0, 1] write "
            "np.round(255 * images).astype(np.uint8)"
        )
    if images.ndim not in (3, 4):
        raise UserError(f"'{path}': {name} have shape {images.shape} but must be [N, H, W] or [N, H, W, C]")
    check_any(path, name, images)
    return images if images.ndim == 4 else images[..., np.newaxis]


def check_any(path: str, name: str, images: np.ndarray) -> None:
    """Refuses images without a pixel.

    Raises:
        UserError: If there is no image, or it has no pixel.
    """
    if 0 in images.shape:
        what = "no image" if not len(images) else "images without pixels"
        raise UserError(f"'{path}' holds {what} ({name} have shape {images.shape}); put images in")


def checked_labels(path: str, name: str, labels: np.ndarray | None, num_images: int) -> Labels | None:
    """Labels as classes: whole numbers from 0, one an image; None where there are none.

    Raises:
        UserError: If they are something else.
    """
    if labels is None:
        return None
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (num_images,):
        raise UserError(
            f"'{path}': {name} are {labels.dtype} of shape {labels.shape} but must be {num_images} whole numbers, "
            "one an image"
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= MOST_CLASSES):
        raise UserError(
            f"'{path}': {name} go from {labels.min()} to {labels.max()} but must be from 0 to {MOST_CLASSES - 1}; "
            "number the classes anew with np.unique(labels, return_inverse=True)"
        )
    return labels.astype(np.int32)


def _take(labels: np.ndarray | None, indices: np.ndarray) -> np.ndarray | None:
    return None if labels is None else labels[indices]


def _size(images: np.ndarray) -> str:
    return "x".join(str(side) for side in images.shape[1:])
