"""Images, or rows of numbers or counts, from a local NumPy file."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from vae_jax.data.archives import read_arrays
from vae_jax.data.dataset import MOST_CLASSES, Dataset, Labels, Split
from vae_jax.data.dividing import fingerprint, split_indices
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import DataError, UserError
from vae_jax.escaping import one_line, printable

WRITE_IT = "write it with np.savez(path, images=...), or rows=... for a table"
NAMES = ("images", "rows")
BESIDE = ("labels", "observed", "context", "context_names")
# Larger counts aren't exact as float32.
_MOST_COUNTS = 2**24
_ROWS_AT_ONCE = 65_536


class Values(NamedTuple):
    """Examples that were checked.

    Attributes:
        split: uint8 levels, float32 numbers with NaN where one is missing, or int32 counts; and what goes with them.
        kind: One of `vae_jax.data.dataset.VALUES`.
        has_missing: Whether any is missing.
        context_names: Of the columns of the context.
    """

    split: Split
    kind: str
    has_missing: bool
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
    file = pathlib.Path(path)
    if not file.is_file():
        raise DataError(f"'{path}' not found", "set --config.data.path=FILE to an .npz with uint8 images, or with rows")
    if file.suffix == ".npy" and file.stat().st_size > resident_mb * 2**20:
        return _divided(path, _streamed(path), test_fraction, seed, fingerprint(np.fromfile(path, np.uint8, 2**20)))
    names = [prefix + name for name in NAMES for prefix in ("", "train_")]
    optional = [prefix + name for name in BESIDE for prefix in ("", "train_", "test_")]
    optional += [f"test_{name}" for name in NAMES]
    arrays = read_arrays(path, names, optional, "an .npz with images", WRITE_IT, "rows")
    name = next(name for name in names if name in arrays)
    if not name.startswith("train_"):
        return _divided(path, checked_values(path, arrays, name), test_fraction, seed)
    other = name.replace("train_", "test_")
    if other not in arrays:
        raise UserError(f"'{path}' has {name} but no {other}; add them, or name the array '{name[len('train_') :]}'")
    train, test = (checked_values(path, arrays, one) for one in (name, other))
    ours, theirs = train.split, test.split
    if (ours.images.shape[1:], ours.max_value) != (theirs.images.shape[1:], theirs.max_value):
        raise UserError(
            f"'{path}': {name} are {ours.images.dtype} of shape {ours.images.shape} but {other} "
            f"{theirs.images.dtype} of shape {theirs.images.shape}; bring them to one size and type"
        )
    if train.context_names != test.context_names:
        raise UserError(f"'{path}': train_context and test_context must both be there, with as many columns")
    return _dataset(path, train, test)


def _divided(path: str, whole: Values, test_fraction: float, seed: int, digest: str = "") -> Dataset:
    train, test = (
        whole._replace(split=whole.split.some(rows))
        for rows in split_indices(len(whole.split.images), test_fraction, seed)
    )
    return _dataset(path, train, test, digest)


def _dataset(path: str, train: Values, test: Values, digest: str = "") -> Dataset:
    ours, theirs = train.split, test.split
    arrays = ours.images, theirs.images, ours.labels, theirs.labels
    contexts = () if ours.context is None else (ours.context, theirs.context)
    return Dataset.of_parts(
        pathlib.Path(path).stem,
        ours,
        theirs,
        digest or fingerprint(*arrays, *contexts),
        values=_kind({train.kind, test.kind}),
        has_missing=train.has_missing or test.has_missing,
        context_names=train.context_names,
    )


def _kind(kinds: set[str]) -> str:
    return kinds.pop() if len(kinds) == 1 else "real"


def _streamed(path: str) -> Values:
    """Rows that stay in their file."""
    try:
        rows = np.load(path, mmap_mode="r")
        if rows.ndim != 2 or 0 in rows.shape:
            raise ValueError(f"its shape is {rows.shape}, not [N, D]")
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' can't be read as rows ({one_line(error)}); {WRITE_IT}") from error
    starts = range(0, len(rows), _ROWS_AT_ONCE)
    parts = [checked_values(path, {"rows": rows[start : start + _ROWS_AT_ONCE]}, "rows") for start in starts]
    kind = _kind({part.kind for part in parts})
    reader = NpyReader(path, rows.shape[1:], np.dtype(np.int32 if kind == "counts" else np.float32))
    images = StreamedImages(reader, np.arange(len(rows)))
    return Values(Split(images, None, 1), kind, any(part.has_missing for part in parts), ())


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
    images, of_rows = arrays[name], name.endswith("rows")
    prefix = name.removesuffix("rows").removesuffix("images")
    if images.ndim not in ((2,) if of_rows else (3, 4)) or 0 in images.shape:
        shape = "[N, D]" if of_rows else "[N, H, W] or [N, H, W, C]"
        raise UserError(f"'{path}': {name} have shape {images.shape} but must be {shape}, none of them 0; {WRITE_IT}")
    images, kind = _as_values(path, images, name, of_rows)
    mask = arrays.get(f"{prefix}observed")
    if mask is not None:
        if mask.dtype != bool or mask.shape != arrays[name].shape:
            raise UserError(f"'{path}': the mask is {mask.dtype} of shape {mask.shape} but must be bool like {name}")
        images = np.where(mask, images.astype(np.float32), np.float32(np.nan))
    observed = ~np.isnan(images).reshape(len(images), -1) if images.dtype.kind == "f" else np.ones((1, 1), bool)
    if not observed.any(axis=1).all():
        number = int(np.argmin(observed.any(axis=1)))
        raise UserError(f"'{path}': number {number} of {name} has no value that is observed; remove it")
    images = images[..., np.newaxis] if images.ndim == 3 else images
    labels = _checked_labels(path, arrays, f"{prefix}labels", len(images))
    context, context_names = checked_context(path, arrays, f"{prefix}context", len(images))
    split = Split(images, labels, 255 if kind == "levels" else 1, context)
    return Values(split, kind, not observed.all(), context_names)


def _as_values(path: str, images: np.ndarray, name: str, of_rows: bool) -> tuple[np.ndarray, str]:
    """The array in one of the types that are kept, and what it consists of."""
    if images.dtype == np.uint8 and not of_rows:
        return images, "levels"
    if images.dtype.kind in "iu" and of_rows and images.min() >= 0:
        if images.max() >= _MOST_COUNTS:
            raise UserError(f"'{path}': a count of {name} is {images.max()}, not below {_MOST_COUNTS}; divide them")
        return images.astype(np.int32), "counts"
    if images.dtype.kind not in ("iuf" if of_rows else "f"):
        raise UserError(f"'{path}': {name} are {images.dtype} but must be uint8 from 0 to 255, or floats; convert them")
    numbers = images.astype(np.float32)
    if np.isinf(numbers).any():
        raise UserError(f"'{path}': {name} have infinite numbers; use NaN for values that are missing")
    within = not np.any((numbers < 0) | (numbers > 1))
    return numbers, "continuous" if within else "real"


def _checked_labels(path: str, arrays: Mapping[str, np.ndarray], name: str, num_images: int) -> Labels | None:
    labels = arrays.get(name)
    if labels is None:
        return None
    fitting = labels.dtype.kind in "iu" and labels.shape == (num_images,)
    if not fitting or labels.min() < 0 or labels.max() >= MOST_CLASSES:
        raise UserError(
            f"'{path}': {name} are {labels.dtype} of shape {labels.shape} but must be {num_images} whole numbers from "
            f"0 to {MOST_CLASSES - 1}; number the classes anew with np.unique(labels, return_inverse=True)"
        )
    return labels.astype(np.int32)


def checked_context(
    path: str, arrays: Mapping[str, np.ndarray], name: str, num_images: int
) -> tuple[Float32[np.ndarray, "n context"] | None, tuple[str, ...]]:
    """The context of each image from an archive, and the name of each column; None without such an array.

    Raises:
        UserError: If it isn't rows of finite numbers, one per image, or the names aren't as many texts.
    """
    context = arrays.get(name)
    if context is None:
        return None, ()
    context = context[:, np.newaxis] if context.ndim == 1 else context
    shape = context.shape
    with np.errstate(over="ignore"):
        numbers = context.astype(np.float32) if context.dtype.kind in "buif" else np.full(1, np.nan, np.float32)
    if len(shape) != 2 or shape[0] != num_images or not shape[1] or not np.all(np.isfinite(numbers)):
        raise UserError(
            f"'{path}': {name} is {context.dtype} of shape {shape} but must be finite numbers [{num_images}, C] or "
            f"[{num_images}], one row per image"
        )
    names = arrays.get("context_names", np.array([f"context{number}" for number in range(shape[1])]))
    if names.dtype.kind != "U" or names.shape != shape[1:]:
        raise UserError(f"'{path}': context_names must be {shape[1]} texts, one for each column of {name}")
    return numbers, tuple(printable(text) for text in names.tolist())
