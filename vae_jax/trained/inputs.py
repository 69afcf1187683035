"""Checks of the images and labels that a caller gives to a trained model."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float32, Shaped

from vae_jax.config import DataConfig
from vae_jax.data import ImageKind
from vae_jax.data.dataset import OTHER_IMAGES, Given, Split, binarized
from vae_jax.errors import UserError
from vae_jax.escaping import one_line
from vae_jax.models import Model, num_latents


class SeenImages(NamedTuple):
    """Images as the model sees them, once they are divided by `max_value`; and their classes or contexts."""

    images: Shaped[np.ndarray, "n *event"] | Float32[np.ndarray, "n *event"]
    max_value: int
    labels: Given


def check_images(
    model: Model, kind: ImageKind, data: DataConfig, images: ArrayLike, label: ArrayLike | None = None
) -> SeenImages:
    """Images and labels as the model sees them.

    Args:
        model: The model.
        kind: What images it is for.
        data: How they are binarized.
        images: `uint8`, or floats in [0, 1]; `[N, H, W, C]`, or `[N, H, W]` where C is 1. For a model of rows: numbers
            or counts `[N, D]`. NaN is a value that is missing.
        label: `int[N]` for a conditional model, or numbers `[N, C]` or `[C]` for one that is told these.

    Raises:
        UserError: If they don't fit this model.
    """
    pixels = check_array(images, "images")
    if pixels.ndim == 3 and len(kind.image_shape) == 3 and kind.image_shape[-1] == 1:
        pixels = pixels[..., np.newaxis]
    if pixels.shape[1:] != kind.image_shape or not len(pixels):
        shape = ", ".join(map(str, kind.image_shape))
        raise UserError(f"images have shape {np.shape(images)} but must be [N, {shape}], N at least 1")
    labels = check_labels(model, kind, label, len(pixels))
    is_float = pixels.dtype.kind == "f"
    if is_float and (np.isnan(pixels).reshape(len(pixels), -1).all(axis=1).any() or np.isinf(pixels).any()):
        raise UserError("an image has infinite numbers, or no value at all that isn't missing (NaN); leave it out")
    if kind.values in ("real", "counts"):
        return SeenImages(pixels.astype(np.float32), 1, labels)
    if pixels.dtype == np.uint8:
        if pixels.max() > kind.max_value:
            raise UserError(
                f"a pixel is {pixels.max()}, but this model's images have levels from 0 to {kind.max_value}; "
                "scale them to these levels, or give floats in [0, 1]"
            )
        split = binarized(Split(pixels, None, kind.max_value), data.binarization, data.seed, OTHER_IMAGES)
        return SeenImages(np.asarray(split.images), split.max_value, labels)
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        raise UserError(f"images are {pixels.dtype} but must be uint8, or floats in [0, 1]")
    pixels = pixels.astype(np.float32)
    if np.any((pixels < 0) | (pixels > 1)):
        raise UserError("images of floats must be in [0, 1]; divide them by their largest level, or give uint8")
    return SeenImages(pixels, 1, labels)


def check_labels(model: Model, kind: ImageKind, label: ArrayLike | None, count: int) -> Given:
    """The class, or the context, of each of `count` images; None for a model that is told nothing.

    Raises:
        UserError: If they don't fit this model.
    """
    classes = model.context_size
    if not classes:
        if label is not None:
            raise UserError("this model isn't conditional: leave label out")
        return None
    if names := kind.context_names:
        mend = f"give label, {len(names)} finite numbers for each: {', '.join(names)}"
        if label is None:
            raise UserError(f"this model is conditional: {mend}")
        with np.errstate(over="ignore"):
            told = check_array(label, "label").astype(np.float32)
        if told.shape not in ((count, len(names)), (len(names),)) or not np.all(np.isfinite(told)):
            raise UserError(f"label has shape {told.shape} for {count} images; {mend}")
        return np.broadcast_to(told, (count, len(names)))
    if label is None:
        raise UserError(f"this model is conditional: give label, a class from 0 to {classes - 1} for each")
    labels = check_array(label, "label")
    is_whole = np.issubdtype(labels.dtype, np.integer)
    if not is_whole or labels.shape != (count,) or labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"label must be {count} whole numbers from 0 to {classes - 1}")
    return labels.astype(np.int32)


def check_latents(model: Model, z: ArrayLike, name: str) -> Float32[np.ndarray, "n d"]:
    """Latents for the decoder of a model.

    Raises:
        UserError: If they aren't finite numbers, or don't fit this model.
    """
    with np.errstate(over="ignore"):
        latents, size = check_array(z, name).astype(np.float32), num_latents(model)
    if latents.ndim != 2 or latents.shape[1] != size or not len(latents) or not np.all(np.isfinite(latents)):
        raise UserError(f"{name} has shape {latents.shape} but must be finite numbers [N, {size}], N at least 1")
    return latents


def check_array(values: ArrayLike, name: str) -> np.ndarray:
    """An array of real numbers.

    Raises:
        UserError: If the values aren't one.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} isn't an array of numbers ({one_line(error)}); all its rows must be alike") from error
    if np.ma.isMaskedArray(values):
        raise UserError(f"{name} is a masked array, and its mask would be ignored; fill it first")
    if array.dtype.kind not in "buif" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} is an array of {array.dtype} but must be one of real numbers")
    return array
