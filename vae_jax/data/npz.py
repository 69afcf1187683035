"""Images from a local NumPy archive."""

import pathlib
import zipfile

import numpy as np

from vae_jax.data.dataset import Dataset, fingerprint, split_indices
from vae_jax.errors import UserError


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
        UserError: If the file isn't there, isn't such an archive, or its arrays aren't such images.
    """
    if not path:
        raise UserError("data.source is 'npz' but no file is named; add --config.data.path=images.npz")
    if not pathlib.Path(path).is_file():
        raise UserError(f"there is no file '{path}'; set --config.data.path to an .npz with uint8 images")
    try:
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            arrays = {name: archive[name] for name in archive.files if name in _NAMES}
            present = archive.files
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"'{path}' can't be read as an .npz of plain arrays ({error}); write it with np.savez(path, images=...)"
        ) from error
    if "images" in arrays:
        images = _checked_images(path, "images", arrays["images"])
        labels = _checked_labels(path, "labels", arrays.get("labels"), len(images))
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
            _checked_labels(path, "train_labels", arrays.get("train_labels"), len(train_images)),
            _checked_labels(path, "test_labels", arrays.get("test_labels"), len(test_images)),
        )
    else:
        raise UserError(
            f"'{path}' holds {', '.join(present) or 'nothing'}, but needs 'images', or 'train_images' and "
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
    if 0 in images.shape:
        raise UserError(f"'{path}': {name} have shape {images.shape}: there are no pixels; put at least two images in")
    return images if images.ndim == 4 else images[..., np.newaxis]


def _checked_labels(path: str, name: str, labels: np.ndarray | None, num_images: int) -> np.ndarray | None:
    if labels is None:
        return None
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (num_images,):
        raise UserError(
            f"'{path}': {name} are {labels.dtype} of shape {labels.shape} but must be {num_images} whole numbers, "
            "one an image"
        )
    return labels.astype(np.int32)


def _take(labels: np.ndarray | None, indices: np.ndarray) -> np.ndarray | None:
    return None if labels is None else labels[indices]


def _size(images: np.ndarray) -> str:
    return "x".join(str(side) for side in images.shape[1:])
