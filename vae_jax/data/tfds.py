"""Any TFDS data set by name: found on disk or prepared there, and read without TensorFlow.

`tensorflow_datasets` takes a second to import, so that is done only to prepare or to decode a data set.
"""

import contextlib
import dataclasses
import functools
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from vae_jax.data import cache
from vae_jax.data.dataset import Dataset, Labels
from vae_jax.data.decoding import AS_THEY_ARE, Sizing, check_size, opened
from vae_jax.data.dividing import fingerprint
from vae_jax.data.streamed import StreamedImages
from vae_jax.data.tfds_prepare import Request, preparation_error, prepare
from vae_jax.errors import DataError, UserError
from vae_jax.escaping import one_line
from vae_jax.files import read_json

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_NAME = re.compile(r"([A-Za-z]\w*)(?:/([A-Za-z0-9][\w.+-]*))?(?::(\d+\.\d+\.\d+))?")
_EXAMPLES_AT_ONCE = 1000


def load_tfds(name: str, data_dir: str | None, sizing: Sizing = AS_THEY_ARE, resident_mb: int = 2048) -> Dataset:
    """Reads a TFDS data set of images of one size; downloads and prepares it first if necessary.

    Args:
        name: TFDS's name: `mnist`, `emnist/letters` or, with a version, `mnist:3.0.1`.
        data_dir: Folder of the prepared data sets; if None or empty, `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
        sizing: The size that images are brought to.
        resident_mb: How much memory the decoded images may take, in MiB; larger data sets stay in their files.

    Returns:
        The parts `train` and `test` (or `validation`, where there is no `test`), largest pixel value 255.

    Raises:
        UserError: If the data set is unknown, is missing and cannot be prepared, needs TensorFlow, or doesn't consist
            of 8-bit images of one size.
    """
    request = _parse(name)
    root = _data_root(data_dir)
    prepared, failure = _find_prepared(root, request), None
    if prepared is None:
        try:
            prepare(root, request)
        except Exception as error:
            failure = error
        # Another process may have prepared the same data set meanwhile.
        prepared = _find_prepared(root, request)
    if prepared is None:
        raise preparation_error(failure or FileNotFoundError("TFDS left nothing there"), root, name) from failure
    files = sorted(path.name for path in prepared.iterdir() if path.is_file())
    digest = cache.files_fingerprint(prepared, files, str(sizing))
    return _load(prepared, prepared.relative_to(root), digest, sizing, resident_mb * 2**20)


def is_prepared(name: str, data_dir: str | None) -> bool:
    """Whether a data set can be read without downloading or preparing it."""
    return _find_prepared(_data_root(data_dir), _parse(name)) is not None


def _load(prepared: Path, place: Path, digest: str, sizing: Sizing, resident_bytes: int) -> Dataset:
    """Arrays from the cache if they are there and may be in memory, else decoded or streamed."""
    name = place.parent.as_posix()
    key = "-".join([*place.parts, digest])
    images, labels = ("train_images", "test_images"), ("train_labels", "test_labels")
    cached = cache.load(key, images + labels)
    if cached and sum(cached[0][image].nbytes for image in images) <= resident_bytes:
        return Dataset(name, **cached[0], max_value=255, fingerprint=cached[1])
    readers = _open_readers(str(prepared), name, sizing)
    train, test = (StreamedImages(reader, np.arange(len(reader.source))) for reader in readers)

    def read_labels() -> cache.Arrays:
        return {label: reader.read_labels() for label, reader in zip(labels, readers, strict=True)}

    if train.nbytes + test.nbytes <= resident_bytes:
        arrays = {"train_images": train.decode(), "test_images": test.decode(), **read_labels()}
        cache.save(key, arrays)
        digest = fingerprint(*arrays.values())
    else:
        # Labels are scattered over all files, so they are cached alone.
        kept = cache.load_or_make(f"{key}-labels", labels, read_labels)
        arrays = {"train_images": train, "test_images": test, **kept}
    return Dataset(name, **arrays, max_value=255, fingerprint=digest)


def _parse(name: str) -> Request:
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"'{name}' can't be the name of a TFDS data set", "use, say, --config.data.name=mnist")
    return Request(name, *match.groups())


def _data_root(data_dir: str | None) -> Path:
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in root:
        raise DataError(f"{root} is not a local folder", "copy it to one and set --config.data.dir to that")
    return Path(root).expanduser().absolute()


def _find_prepared(root: Path, request: Request) -> Path | None:
    folder, config = root / request.dataset, request.config or ""
    if not config:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            config = str(read_json(folder / ".config" / "metadata.json")["default_config_name"])
    versions = [path.parent for path in (folder / config).glob("*/dataset_info.json")]
    # TFDS prepares in a folder whose name isn't a version, and renames it when everything is written.
    versions = [path for path in versions if _VERSION.fullmatch(path.name) and request.version in (None, path.name)]
    return max(versions, key=lambda path: [int(number) for number in path.name.split(".")], default=None)


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedReader:
    """Decodes the images of one part of a prepared data set.

    Attributes:
        folder: The prepared folder.
        name: TFDS's name of the data set.
        source: TFDS's data source of the part.
        decode: TFDS's function that decodes an image; None if the images aren't encoded.
        has_labels: Whether the examples have class labels.
        sizing: The size that images are brought to.
        image_shape: Height, width and channels of each image.
    """

    folder: str
    name: str
    source: Any
    decode: Any
    has_labels: bool
    sizing: Sizing
    image_shape: tuple[int, ...]

    def read(self, indices: Int[np.ndarray, "n"]) -> Iterator[UInt8[np.ndarray, "h w c"]]:
        """The images with these numbers.

        Raises:
            UserError: If the files are damaged or the images differ in size.
        """
        with _errors_named(self.folder):
            for example in self._examples(indices):
                pixels = self.sizing(_decoded(example["image"], self.decode))
                check_size(pixels.shape, self.image_shape, f"an image of {self.name}")
                yield pixels

    def read_labels(self) -> Labels | None:
        """All labels, without decoding images.

        Raises:
            UserError: If the files are damaged.
        """
        if not self.has_labels:
            return None
        with _errors_named(self.folder):
            return np.array([example["label"] for example in self._examples(np.arange(len(self.source)))], np.int32)

    def _examples(self, indices: Int[np.ndarray, "n"]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(indices), _EXAMPLES_AT_ONCE):
            yield from self.source.__getitems__(indices[start : start + _EXAMPLES_AT_ONCE].tolist())


def _decoded(image: Any, decode: Any) -> np.ndarray:
    if decode is None:
        return image
    # TFDS decodes, so that the pixels are TFDS's; first our own check of format and size.
    opened(io.BytesIO(image)).close()
    return decode(image)


def _open_readers(folder: str, name: str, sizing: Sizing) -> list[PreparedReader]:
    """Readers of the training and the test part; only the first image has been decoded."""
    import tensorflow_datasets as tfds

    # TFDS prints its progress to stdout, where a caller may expect nothing but results.
    with _errors_named(folder), contextlib.redirect_stdout(io.StringIO()):
        builder: Any = tfds.builder_from_directory(folder)
        formats = sorted(file_format.value for file_format in builder.info.available_file_formats())
        if "array_record" not in formats:
            raise DataError(
                f"{folder} holds {' and '.join(formats) or 'unknown'} files, but array_record is needed",
                "set --config.data.dir to another folder to prepare it there, or run, where TensorFlow is installed: "
                f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record",
            )
        splits = list(builder.info.splits)
        test = "test" if "test" in splits else "validation"
        if not {"train", test} <= set(splits):
            raise DataError(
                f"{name} has the splits {', '.join(splits) or '(none)'}, but needs train, and test or validation",
                "write its images into an .npz and set --config.data.source=npz",
            )
        features = dict(builder.info.features.items())
        image, label = features.get("image"), features.get("label")
        if image is None or image.np_dtype != np.uint8 or len(image.shape) != 3:
            raise UserError(f"{name} has no 8-bit 'image' but {', '.join(features)}; choose another data set")
        has_labels = label is not None and label.shape == () and bool(np.issubdtype(label.np_dtype, np.integer))
        # Always Pillow: OpenCV, which TFDS uses if it is installed, decodes JPEGs to other bytes.
        pillow = getattr(image, "decode_example_np_with_pil", None)
        decode = functools.partial(pillow, num_channels=image.shape[-1]) if pillow else None
        decoders = {"image": tfds.decode.SkipDecoding()} if pillow else None
        sources = [builder.as_data_source(split, decoders=decoders) for split in ("train", test)]
        if not all(map(len, sources)):
            raise UserError(f"{name} has no images in its split train or {test}; use another data set")
        shape = sizing(_decoded(sources[0].__getitems__([0])[0]["image"], decode)).shape
        return [PreparedReader(folder, name, source, decode, has_labels, sizing, shape) for source in sources]


@contextlib.contextmanager
def _errors_named(prepared: str | Path) -> Iterator[None]:
    """Turns exceptions into a `UserError` that names the prepared folder."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # TFDS, array_record and Pillow raise many kinds of exceptions for damaged files.
        cause = f"{prepared} cannot be read: {one_line(error)}"
        raise UserError(f"{cause}; delete it and run the same command again") from error
