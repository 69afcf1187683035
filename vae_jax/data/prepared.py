"""Reads the images and labels of a folder that TFDS has prepared as `array_record`, without TensorFlow."""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from vae_jax.data.dataset import Labels
from vae_jax.data.decoding import Sizing, opened
from vae_jax.errors import DataError, UserError
from vae_jax.printable import one_line

_EXAMPLES_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True)
class PreparedReader:
    """Decodes the images of one part of a prepared data set.

    Attributes:
        folder: The prepared folder.
        fingerprint: Digest of the files in it.
        name: TFDS's name of the data set.
        split: TFDS's name of the part.
        sizing: What size images are brought to.
        image_shape: Height, width and channels of each image.
    """

    folder: str
    fingerprint: str
    name: str
    split: str
    sizing: Sizing
    image_shape: tuple[int, int, int]

    def read(self, indices: Int[np.ndarray, "n"]) -> UInt8[np.ndarray, "n h w c"]:
        """The images of these numbers.

        Raises:
            UserError: If the files are damaged or the images differ in size.
        """
        return self.read_labelled(indices)[0]

    def read_labelled(self, indices: Int[np.ndarray, "n"]) -> tuple[UInt8[np.ndarray, "n h w c"], Labels | None]:
        """The images of these numbers and, where the data set has them, their labels.

        Raises:
            UserError: As `read`.
        """
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        part = self._part()
        with reading(self.folder):
            for row, example in enumerate(self._examples(indices)):
                image = _decoded(part, example["image"], self.sizing)
                if image.shape != self.image_shape:
                    raise size_error(self.name, self.image_shape, image.shape)
                images[row] = image
                labels[row] = example["label"] if part.has_labels else 0
        return images, labels if part.has_labels else None

    def read_all(self) -> tuple[UInt8[np.ndarray, "n h w c"], Labels | None]:
        """All images and labels of the part.

        Raises:
            UserError: As `read`.
        """
        images = np.empty((len(self), *self.image_shape), np.uint8)
        labels = np.empty(len(self), np.int32)
        for indices in self._pieces():
            images[indices], some = self.read_labelled(indices)
            labels[indices] = 0 if some is None else some
        return images, labels if self._part().has_labels else None

    def read_labels(self) -> Labels | None:
        """The labels of the part; no image is decoded.

        Raises:
            UserError: If the files are damaged.
        """
        if not self._part().has_labels:
            return None
        with reading(self.folder):
            return np.array(
                [example["label"] for indices in self._pieces() for example in self._examples(indices)], np.int32
            )

    def __len__(self) -> int:
        return len(self._part().source)

    def _pieces(self) -> Iterator[Int[np.ndarray, "n"]]:
        for start in range(0, len(self), _EXAMPLES_AT_ONCE):
            yield np.arange(start, min(start + _EXAMPLES_AT_ONCE, len(self)))

    def _examples(self, indices: Int[np.ndarray, "n"]) -> list[dict[str, Any]]:
        return self._part().source.__getitems__(indices.tolist())

    def _part(self) -> "_Part":
        return _open(self.folder, self.fingerprint, self.name)[self.split]


def open_prepared(folder: Path, fingerprint: str, name: str, sizing: Sizing) -> tuple[PreparedReader, PreparedReader]:
    """Readers of the training and the test part (or the validation part, where there's no test part).

    Args:
        folder: The prepared folder.
        fingerprint: Digest of the files in it.
        name: TFDS's name of the data set.
        sizing: What size images are brought to.

    Returns:
        The two; of each only the first image has been looked at.

    Raises:
        UserError: If the files can't be read, or hold no such parts or images.
    """
    readers = []
    parts = _open(str(folder), fingerprint, name)
    for split, part in parts.items():
        if not len(part.source):
            raise UserError(f"{name} has no images in its split {split}; use another data set")
        with reading(folder):
            height, width, channels = _decoded(part, part.source.__getitems__([0])[0]["image"], sizing).shape
        readers.append(PreparedReader(str(folder), fingerprint, name, split, sizing, (height, width, channels)))
    train, test = readers
    if train.image_shape != test.image_shape:
        raise size_error(name, train.image_shape, test.image_shape)
    return train, test


class _Part(NamedTuple):
    source: Any
    decode: Any
    has_labels: bool


# Opened files can't be pickled into another process, so each process opens its own when it first reads.
@functools.lru_cache(maxsize=2)
def _open(folder: str, fingerprint: str, name: str) -> dict[str, _Part]:
    import tensorflow_datasets as tfds

    # TFDS tells its progress on stdout, where a caller may expect nothing but results.
    with reading(folder), contextlib.redirect_stdout(io.StringIO()):
        builder: Any = tfds.builder_from_directory(folder)
        _check_format(builder, folder)
        feature, has_labels = _features(builder, name)
        # Always Pillow: OpenCV, which TFDS takes where it can, decodes JPEGs to other bytes.
        pillow = getattr(feature, "decode_example_np_with_pil", None)
        decode = functools.partial(pillow, num_channels=feature.shape[-1]) if pillow else None
        decoders = {"image": tfds.decode.SkipDecoding()} if pillow else None
        return {
            split: _Part(builder.as_data_source(split, decoders=decoders), decode, has_labels)
            for split in _split_names(builder, name)
        }


def _decoded(part: _Part, image: Any, sizing: Sizing) -> np.ndarray:
    if part.decode is None:
        return sizing(image)
    # By TFDS's own hand, for its own pixels; but not whatever Pillow knows, nor however large.
    opened(io.BytesIO(image)).close()
    return sizing(part.decode(image))


@contextlib.contextmanager
def reading(prepared: str | Path) -> Iterator[None]:
    """Turns whatever is raised inside into an error that says that a prepared folder cannot be read.

    Args:
        prepared: The folder.

    Raises:
        UserError: In place of any exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # TFDS, array_record and Pillow raise whatever comes to hand where a file is damaged.
        cause = f"{prepared} cannot be read: {one_line(error)}"
        raise UserError(f"{cause}; delete it and run the same command again") from error


def size_error(name: str, first: tuple[int, ...], other: tuple[int, ...]) -> UserError:
    """The error for a data set whose images differ in size."""
    sizes = " and ".join("x".join(map(str, shape)) for shape in (first, other))
    mend = "bring them to one size with --config.data.image_size=64, say"
    return DataError(f"the images of {name} differ in size ({sizes})", mend)


def _check_format(builder: Any, prepared: str) -> None:
    formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
    if "array_record" not in formats:
        raise DataError(
            f"{prepared} holds {' and '.join(formats) or 'unknown'} files, but array_record is needed",
            "set --config.data.dir to another folder to prepare it there, or run, where TensorFlow is installed: "
            f"tfds convert_format --dataset_version_dir={prepared} --out_file_format=array_record",
        )


def _split_names(builder: Any, name: str) -> tuple[str, str]:
    present = list(builder.info.splits)
    test = next((split for split in ("test", "validation") if split in present), None)
    if "train" not in present or test is None:
        raise DataError(
            f"{name} has the splits {', '.join(present) or '(none)'}, but needs train and one of test and validation",
            "write its images into an .npz and set --config.data.source=npz",
        )
    return "train", test


def _features(builder: Any, name: str) -> tuple[Any, bool]:
    features = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    if image is None or image.np_dtype != np.uint8 or len(image.shape) != 3:
        raise UserError(f"{name} has no 8-bit 'image' but {', '.join(features)}; choose another data set")
    has_labels = label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer)
    return image, bool(has_labels)
