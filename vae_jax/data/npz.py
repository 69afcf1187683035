"""Images from a local NumPy archive."""

import pathlib
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from vae_jax.data.archives import read_arrays
from vae_jax.data.dataset import MOST_CLASSES, Dataset, Labels, fingerprint, split_indices, take_labels
from vae_jax.errors import DataError, UserError
from vae_jax.escaping import printable

WRITE_IT = "write it with np.savez(path, images=...)"
CONTEXT_ARRAYS = ("context", "train_context", "test_context", "context_names")


def load_npz(path: str, test_fraction: float, seed: int) -> Dataset:
    """Reads `train_images` and `test_images`, or `images` that are divided here.

    Args:
        path: An `.npz` with `uint8` images `[N, H, W]` or `[N, H, W, C]` and, optionally, whole-number
            labels `train_labels` and `test_labels`, or `labels`. What a conditional model is told in place of these
            is `train_context` and `test_context`, or `context`, with `context_names`.
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
    optional = ("labels", "test_images", "train_labels", "test_labels", *CONTEXT_ARRAYS)
    arrays = read_arrays(path, ("images", "train_images"), optional, "an .npz with images", WRITE_IT)
    if "images" in arrays:
        images, labels = checked_images(path, arrays, "images")
        train, test = split_indices(len(images), test_fraction, seed)
        parts = images[train], images[test], take_labels(labels, train), take_labels(labels, test)
        context, names = checked_context(path, arrays, "context", len(images))
        contexts = take_labels(context, train), take_labels(context, test)
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
        train_context, names = checked_context(path, arrays, "train_context", len(train_images))
        test_context, others = checked_context(path, arrays, "test_context", len(test_images))
        contexts = train_context, test_context
        if names != others:
            raise UserError(f"'{path}': train_context and test_context must both be there, with as many columns")
    told = dict(zip(("train_context", "test_context"), contexts, strict=True))
    digest = fingerprint(*parts, *(contexts if names else ()))
    name = pathlib.Path(path).stem
    return Dataset(name, *parts, max_value=255, fingerprint=digest, **told, context_names=names)


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


def checked_context(
    path: str, arrays: Mapping[str, np.ndarray], name: str, num_images: int
) -> tuple[Float32[np.ndarray, "n context"] | None, tuple[str, ...]]:
    """The context of each image from an archive, and the name of each column; None without such an array.

    Raises:
        UserError: If it isn't rows of finite numbers, one per image, or the names aren't as many texts.
    """
    if name not in arrays:
        return None, ()
    context = arrays[name][:, np.newaxis] if arrays[name].ndim == 1 else arrays[name]
    with np.errstate(over="ignore"):
        numbers = context.astype(np.float32) if context.dtype.kind in "buif" else np.full(1, np.nan, np.float32)
    shape = context.shape
    if len(shape) != 2 or shape[0] != num_images or not shape[1] or not np.all(np.isfinite(numbers)):
        raise UserError(
            f"'{path}': {name} is {context.dtype} of shape {arrays[name].shape} but must be finite numbers "
            f"[{num_images}, C] or [{num_images}], one row per image"
        )
    names = arrays.get("context_names", np.array([f"context{number}" for number in range(shape[1])]))
    if names.dtype.kind != "U" or names.shape != shape[1:]:
        raise UserError(f"'{path}': context_names must be {shape[1]} texts, one for each column of {name}")
    return numbers, tuple(printable(text) for text in names.tolist())
