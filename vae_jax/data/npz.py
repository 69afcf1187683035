"""Images from a local NumPy archive."""

import pathlib
from collections.abc import Mapping

import numpy as np

from vae_jax.data.archives import read_arrays
from vae_jax.data.dataset import MOST_CLASSES, Dataset, Labels, fingerprint, split_indices, take_labels
from vae_jax.errors import DataError, UserError

WRITE_IT = "write it with np.savez(path, images=...)"


def load_npz(path: str, test_fraction: float, seed: int) -> Dataset:
    """Reads `train_images` and `test_images`, or `images` that are divided here.

    Args:
        path: An `.npz` with `uint8` images `[N, H, W]` or `[N, H, W, C]` and, optionally, whole-number
            labels `train_labels` and `test_labels`, or `labels`.
        test_fraction: Share of `images` that is held out for testing.
        seed: Seed of that division.

    Returns:
        The images with four axes; largest pixel value 255.

    Raises:
        UserError: If there is no such file, it is not such an archive, its arrays are not such images, or they don't
            fit into the free memory.
    """
    if not path:
        raise DataError("data.source is 'npz' but no file is named", "add --config.data.path=images.npz")
    if not pathlib.Path(path).is_file():
        raise DataError(f"'{path}' not found", "set --config.data.path to an .npz with uint8 images")
    optional = ("labels", "test_images", "train_labels", "test_labels")
    arrays = read_arrays(path, ("images", "train_images"), optional, "an .npz with images", WRITE_IT)
    if "images" in arrays:
        images, labels = checked_images(path, arrays, "images")
        train, test = split_indices(len(images), test_fraction, seed)
        parts = images[train], images[test], take_labels(labels, train), take_labels(labels, test)
    elif "test_images" not in arrays:
        raise UserError(f"'{path}' has train_images but no test_images; add them, or name the array 'images'")
    else:
        train_images, train_labels = checked_images(path, arrays, "train_images")
        test_images, test_labels = checked_images(path, arrays, "test_images")
        if train_images.shape[1:] != test_images.shape[1:]:
            raise UserError(
                f"'{path}': train_images have shape {train_images.shape} but test_images {test_images.shape}; bring "
                "them to one size"
            )
        parts = train_images, test_images, train_labels, test_labels
    return Dataset(pathlib.Path(path).stem, *parts, max_value=255, fingerprint=fingerprint(*parts))


def checked_images(path: str, arrays: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, Labels | None]:
    """Images from an archive as `uint8[N, H, W, C]`, and their labels.

    Args:
        path: The archive, for error messages.
        arrays: Its arrays by name.
        name: Name of the images; that of the labels is the same with `labels` for `images`.

    Raises:
        UserError: If they are not images, or the labels are not class numbers from 0, one per image.
    """
    images = arrays[name]
    if images.dtype != np.uint8:
        raise UserError(
            f"'{path}': {name} are {images.dtype} but must be uint8 from 0 to 255; for values in [0, 1] write "
            "np.round(255 * images).astype(np.uint8)"
        )
    if images.ndim not in (3, 4):
        raise UserError(f"'{path}': {name} have shape {images.shape} but must be [N, H, W] or [N, H, W, C]")
    if 0 in images.shape:
        what = "images without pixels" if len(images) else "no images"
        raise UserError(f"'{path}' holds {what} ({name} have shape {images.shape}); choose another file")
    labels = _checked_labels(path, arrays, name.replace("images", "labels"), len(images))
    return images if images.ndim == 4 else images[..., np.newaxis], labels


def _checked_labels(path: str, arrays: Mapping[str, np.ndarray], name: str, num_images: int) -> Labels | None:
    if name not in arrays:
        return None
    labels = arrays[name]
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (num_images,):
        raise UserError(
            f"'{path}': {name} are {labels.dtype} of shape {labels.shape} but must be {num_images} whole numbers, "
            "one per image"
        )
    if labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise UserError(
            f"'{path}': {name} go from {labels.min()} to {labels.max()} but must be from 0 to {MOST_CLASSES - 1}; "
            "number the classes anew with np.unique(labels, return_inverse=True)"
        )
    return labels.astype(np.int32)
