"""Images, or rows of numbers or counts, from a local NumPy file."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from vae_jax.data.archives import read_arrays
from vae_jax.data.dataset import MOST_CLASSES, Dataset, Labels, take_labels
from vae_jax.data.dividing import fingerprint, split_indices
from vae_jax.data.streamed import Images, StreamedImages, take
from vae_jax.errors import DataError, UserError
from vae_jax.escaping import printable

WRITE_IT = "write it with np.savez(path, images=...), or rows=... for a table"
NAMES = ("images", "rows")
BESIDE = ("labels", "observed", "context", "context_names")
# Larger counts aren't exact as float32.
_MOST_COUNTS = 2**24
_ROWS_AT_ONCE = 65_536


class Values(NamedTuple):
    """Examples that were checked.

    Attributes:
        images: uint8 levels, float32 numbers with NaN where one is missing, or int32 counts.
        kind: One of `vae_jax.data.dataset.VALUES`.
        has_missing: Whether any is missing.
        labels: Class of each, or None.
        context: What a conditional model is told of each in place of these, or None.
        context_names: Of the columns of the context.
    """

    images: Images
    kind: str
    has_missing: bool
    labels: Labels | None
    context: Float32[np.ndarray, "n context"] | None
    context_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NpyReader:
    """Reads rows of a `.npy` file, which stays on the disk."""

    path: str
    image_shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, indices: Int[np.ndarray, "n"]) -> Iterator[np.ndarray]:
        """See `vae_jax.data.streamed.Reader`."""
        yield from np.load(self.path, mmap_mode="r")[indices].astype(self.dtype)


def load_npz(path: str, test_fraction: float, seed: int, resident_mb: int = 2048) -> Dataset:
    """Reads `train_images` and `test_images`, or `images` that are divided here; or `rows` in their place.

    Args:
        path: An `.npz` with images `[N, H, W]` or `[N, H, W, C]`, `uint8` or floats; or with rows `[N, D]` of floats or
            of counts (whole numbers). NaN is a value that is missing; `observed`, booleans in the same shape, does the
            same for `uint8`. Optional are whole-number labels `train_labels` and `test_labels`, or `labels`. What a
            conditional model is told in place of these is `train_context` and `test_context`, or `context`, with
            `context_names`. Or an `.npy` with rows.
        test_fraction: Share of `images` that is held out for testing.
        seed: Seed of that division.
        resident_mb: A larger `.npy` stays in its file.

    Returns:
        Images with four axes, largest pixel value 255; or rows.

    Raises:
        UserError: If there is no such file, it is not such an archive, its arrays are not such images, or they don't
            fit into the free memory.
    """
    if not path:
        raise DataError("data.source is 'npz' but no file is named", "add --config.data.path=images.npz")
    if not pathlib.Path(path).is_file():
        raise DataError(f"'{path}' not found", "set --config.data.path to an .npz with uint8 images, or with rows")
    if pathlib.Path(path).suffix == ".npy" and pathlib.Path(path).stat().st_size > resident_mb * 2**20:
        whole = _streamed(path)
        with open(path, "rb") as file:
            digest = fingerprint(np.frombuffer(file.read(2**20), np.uint8))
        return _divided(path, whole, test_fraction, seed, digest)
    names = [prefix + name for name in NAMES for prefix in ("", "train_")]
    optional = [prefix + name for name in BESIDE for prefix in ("", "train_", "test_")]
    optional += [f"test_{name}" for name in NAMES]
    arrays = read_arrays(path, names, optional, "an .npz with images", WRITE_IT, "rows")
    name = next(name for name in names if name in arrays)
    if not name.startswith("train_"):
        return _divided(path, checked_values(path, arrays, name), test_fraction, seed, None)
    other = name.replace("train_", "test_")
    if other not in arrays:
        raise UserError(f"'{path}' has {name} but no {other}; add them, or name the array '{name[len('train_') :]}'")
    train, test = (checked_values(path, arrays, one) for one in (name, other))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"'{path}': {name} have shape {train.images.shape} but {other} {test.images.shape}; bring them to one size"
        )
    if train.context_names != test.context_names:
        raise UserError(f"'{path}': train_context and test_context must both be there, with as many columns")
    return _dataset(path, train, test, None)


def _divided(path: str, whole: Values, test_fraction: float, seed: int, digest: str | None) -> Dataset:
    parts = split_indices(len(whole.images), test_fraction, seed)
    train, test = (
        whole._replace(
            images=take(whole.images, rows),
            labels=take_labels(whole.labels, rows),
            context=take_labels(whole.context, rows),
        )
        for rows in parts
    )
    return _dataset(path, train, test, digest)


def _dataset(path: str, train: Values, test: Values, digest: str | None) -> Dataset:
    kinds = {train.kind, test.kind}
    kind = train.kind if len(kinds) == 1 else "real"
    arrays = train.images, test.images, train.labels, test.labels
    contexts = () if train.context is None else (train.context, test.context)
    return Dataset(
        pathlib.Path(path).stem,
        *arrays,
        max_value=255 if kind == "levels" else 1,
        fingerprint=fingerprint(*arrays, *contexts) if digest is None else digest,
        values=kind,
        has_missing=train.has_missing or test.has_missing,
        train_context=train.context,
        test_context=test.context,
        context_names=train.context_names,
    )


def _streamed(path: str) -> Values:
    """Rows that stay in their file."""
    rows = np.load(path, mmap_mode="r")
    if rows.ndim != 2 or 0 in rows.shape:
        raise UserError(f"'{path}' has shape {rows.shape} but must be rows [N, D] to be read from its file")
    kinds, missing = set(), False
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        found = checked_values(path, {"rows": np.asarray(rows[start : start + _ROWS_AT_ONCE])}, "rows")
        kinds, missing = kinds | {found.kind}, missing or found.has_missing
    kind = kinds.pop() if len(kinds) == 1 else "real"
    reader = NpyReader(path, rows.shape[1:], np.dtype(np.int32 if kind == "counts" else np.float32))
    return Values(StreamedImages(reader, np.arange(len(rows))), kind, missing, None, None, ())


def checked_values(path: str, arrays: Mapping[str, np.ndarray], name: str) -> Values:
    """Examples from an archive, and their labels.

    Args:
        path: The archive, for error messages.
        arrays: Its arrays by name.
        name: Name of the examples; that of labels and mask is the same with `labels` and `observed` in place of
            `images` or `rows`.

    Raises:
        UserError: If they aren't images or rows, an example has no observed value, or the labels are not class numbers
            from 0, one per image.
    """
    images = arrays[name]
    is_rows = name.endswith("rows")
    if images.ndim not in ((2,) if is_rows else (3, 4)):
        shape = "[N, D]" if is_rows else "[N, H, W] or [N, H, W, C]"
        raise UserError(f"'{path}': {name} have shape {images.shape} but must be {shape}; {WRITE_IT}")
    if 0 in images.shape:
        what = "images without pixels" if len(images) else "no images"
        raise UserError(f"'{path}' holds {what} ({name} have shape {images.shape}); choose another file")
    images, kind = _as_values(path, images, name, is_rows)
    mask = arrays.get(name.replace("images", "observed").replace("rows", "observed"))
    if mask is not None:
        if mask.dtype != bool or mask.shape != arrays[name].shape:
            raise UserError(f"'{path}': the mask is {mask.dtype} of shape {mask.shape} but must be bool like {name}")
        images = np.where(mask, images.astype(np.float32), np.float32(np.nan))
    observed = ~np.isnan(images).reshape(len(images), -1) if images.dtype.kind == "f" else np.ones((1, 1), bool)
    if not observed.any(axis=1).all():
        number = int(np.argmin(observed.any(axis=1)))
        raise UserError(f"'{path}': number {number} of {name} has no value that is observed; remove it")
    labels = _checked_labels(path, arrays, name.replace("images", "labels").replace("rows", "labels"), len(images))
    told = checked_context(path, arrays, name.replace("images", "context").replace("rows", "context"), len(images))
    return Values(images[..., np.newaxis] if images.ndim == 3 else images, kind, not observed.all(), labels, *told)


def _as_values(path: str, images: np.ndarray, name: str, is_rows: bool) -> tuple[np.ndarray, str]:
    """The array in one of the types that are kept, and what it consists of."""
    if images.dtype == np.uint8 and not is_rows:
        return images, "levels"
    if images.dtype.kind in "iu" and is_rows and images.min() >= 0:
        if images.max() >= _MOST_COUNTS:
            raise UserError(f"'{path}': a count of {name} is {images.max()}, not below {_MOST_COUNTS}; divide them")
        return images.astype(np.int32), "counts"
    if (images.dtype.kind != "f" and not is_rows) or images.dtype.kind not in "iuf":
        raise UserError(
            f"'{path}': {name} are {images.dtype} but must be uint8 from 0 to 255, or floats; convert them, e.g. with "
            "images.astype(np.uint8)"
        )
    numbers = images.astype(np.float32)
    if np.isinf(numbers).any():
        raise UserError(f"'{path}': {name} have infinite numbers; use NaN for values that are missing")
    within = not np.any((numbers < 0) | (numbers > 1))
    return numbers, "continuous" if within else "real"


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
