"""Builders of MNIST, Fashion-MNIST and KMNIST that prepare TFDS's own folders without TensorFlow.

TFDS's builders need TensorFlow for three small things: to unpack the `.gz` files, to open them and to
encode PNGs. The builders here do these with the standard library and Pillow and leave the rest
(addresses, checksums, names, versions, order of the examples) to TFDS.
"""

import functools
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vae_jax.errors import UserError

_CLASS_NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
NAMES = frozenset(_CLASS_NAMES)

_IDX_UINT8 = 0x08
GreyImage = UInt8[np.ndarray, "h w"]


def read_idx(path: str | os.PathLike[str]) -> UInt8[np.ndarray, "..."]:
    """Reads a gzipped idx file of bytes, the format of LeCun's MNIST files.

    Args:
        path: The `.gz` file.

    Returns:
        `uint8` array of the shape that the file's header states.

    Raises:
        UserError: If the file is truncated, is not gzip, or is not an idx file of bytes.
    """
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _bad_idx(path, f"it does not unpack ({error})") from error
    if len(content) < 4 or content[:3] != bytes([0, 0, _IDX_UINT8]):
        raise _bad_idx(path, f"it starts with {content[:4].hex() or 'nothing'} where 000008 is expected")
    num_axes = content[3]
    data_start = 4 + 4 * num_axes
    if len(content) < data_start:
        raise _bad_idx(path, f"its header is cut off after {len(content)} of {data_start} bytes")
    shape = tuple(int(size) for size in np.frombuffer(content[4:data_start], dtype=">u4"))
    data = np.frombuffer(content, dtype=np.uint8, offset=data_start)
    expected = int(np.prod(shape, dtype=np.int64))
    if data.size != expected:
        raise _bad_idx(path, f"it holds {data.size} bytes where its header {shape} asks for {expected}")
    return data.reshape(shape)


def encode_png(image: GreyImage) -> bytes:
    """Packs one grey image losslessly.

    Args:
        image: `uint8[H, W]`.

    Returns:
        The bytes of a PNG file.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


@functools.cache
def builder_class(name: str) -> type[Any]:
    """TFDS's builder of a member of the family, freed from TensorFlow.

    Args:
        name: One of `NAMES`.

    Returns:
        A subclass of TFDS's builder class with the same name, version and checksums.
    """
    from tensorflow_datasets.core import registered
    from tensorflow_datasets.image_classification import mnist

    original = getattr(mnist, _CLASS_NAMES[name])
    # TFDS finds the checksums, and records in dataset_info.json where the builder lives, by `__module__`.
    identity = {"name": original.name, "__module__": original.__module__}
    with registered.skip_registration():
        return type(original.__name__, (_WithoutTensorFlow, original), identity)


class _WithoutTensorFlow:
    """Mixin in front of TFDS's MNIST builders that replaces what needs TensorFlow."""

    def _split_generators(self, dl_manager: Any) -> Any:
        return super()._split_generators(_PackedDownloads(dl_manager))  # pyright: ignore[reportAttributeAccessIssue]

    def _generate_examples(
        self, num_examples: int, data_path: str | os.PathLike[str], label_path: str | os.PathLike[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        images = read_idx(data_path)
        labels = read_idx(label_path)
        if images.shape != (num_examples, 28, 28):
            raise _bad_idx(data_path, f"it holds {images.shape}, not {(num_examples, 28, 28)}")
        if labels.shape != (num_examples,) or labels.max(initial=0) > 9:
            raise _bad_idx(label_path, f"it does not hold {num_examples} labels in 0 .. 9")
        # The index as key gives the examples TFDS's own order: it shuffles by a hash of the key.
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": io.BytesIO(encode_png(image)), "label": int(label)}


class _PackedDownloads:
    """A download manager that leaves archives packed, since TFDS unpacks with TensorFlow."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def download_and_extract(self, urls: Mapping[str, str]) -> Any:
        return self._manager.download(urls)


def _bad_idx(path: str | os.PathLike[str], cause: str) -> UserError:
    return UserError(
        f"{os.fspath(path)} is not the idx file that was expected: {cause}; "
        "delete it and run the same command again to download it anew"
    )
