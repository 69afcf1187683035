"""Images that stay in their files: an object like an array that decodes the rows that are read."""

import concurrent.futures
import dataclasses
import os
import typing
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int, Shaped

_IMAGES_AT_ONCE = 32
_THREADS = min(8, os.cpu_count() or 1)

# (pixels, numbers=the number of each image in its part) -> pixels
Change = Callable[..., Shaped[np.ndarray, "n *event"]]


@typing.runtime_checkable
class Reader(Protocol):
    """Decodes images of one size from files.

    It is pickled into other processes, so it opens its files when it reads, and it doesn't use JAX.
    """

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of each image, or the length of each row."""
        ...

    def read(self, indices: Int[np.ndarray, "n"]) -> Iterable[Shaped[np.ndarray, "*event"]]:
        """The images with these numbers, in this order."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedImages:
    """A read-only array `[N, H, W, C]` or `[N, D]` whose images are decoded when they are read.

    Its type is uint8, or the one that its reader declares as `dtype`.

    Attributes:
        reader: Decodes them.
        rows: `int[N]`: which of the reader's images these are.
        change: A function of the decoded pixels, or None.
        numbers: `int[N]`: the number that `change` is given for each image, or None.
    """

    reader: Reader
    rows: Int[np.ndarray, "n"]
    change: Change | None = None
    numbers: Int[np.ndarray, "n"] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return len(self.rows), *self.reader.image_shape

    @property
    def dtype(self) -> np.dtype:
        """As of an array."""
        return np.dtype(getattr(self.reader, "dtype", np.uint8))

    @property
    def nbytes(self) -> int:
        """Bytes that all images would take in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Decodes the images selected by a number, a slice or an array of numbers."""
        if isinstance(key, int | np.integer):
            return self.take(np.array([key])).decode()[0]
        return self.take(key).decode()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Decodes all images, for `np.asarray`."""
        return self.decode() if dtype is None else self.decode().astype(dtype)

    def take(self, rows: slice | np.ndarray) -> "StreamedImages":
        """Some of these images, still in their files."""
        numbers = None if self.numbers is None else self.numbers[rows]
        return dataclasses.replace(self, rows=self.rows[rows], numbers=numbers)

    def changed(self, change: Change) -> "StreamedImages":
        """The same images, with a change to make after decoding.

        Args:
            change: `(pixels, numbers=) -> pixels`; the images keep their numbers when some are taken later.
        """
        return dataclasses.replace(self, change=change, numbers=np.arange(len(self)))

    def decode(self, num_threads: int = _THREADS) -> Shaped[np.ndarray, "n *event"]:
        """All of these images as an array.

        Args:
            num_threads: How many threads share the work; Pillow releases the interpreter lock while it decodes.
        """
        images = np.empty(self.shape, self.dtype)

        def fill(start: int) -> None:
            part = slice(start, start + _IMAGES_AT_ONCE)
            for row, pixels in zip(images[part], self.reader.read(self.rows[part]), strict=True):
                row[...] = pixels
            if self.change is not None and self.numbers is not None:
                images[part] = self.change(images[part], numbers=self.numbers[part])

        starts = range(0, len(self), _IMAGES_AT_ONCE)
        if num_threads == 1:
            for start in starts:
                fill(start)
        else:
            # If one fails (or Ctrl-C comes), `map` cancels those that haven't begun.
            with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
                list(threads.map(fill, starts))
        return images


Images = Shaped[np.ndarray | StreamedImages, "n *event"]


def take(images: Images, rows: slice | np.ndarray) -> Shaped[np.ndarray | StreamedImages, "m *event"]:
    """Some of the images, wherever they are.

    Args:
        images: In memory or in files.
        rows: Which: a slice or numbers.

    Returns:
        The same as indexing for images in memory; images in files are not decoded.
    """
    return images.take(rows) if isinstance(images, StreamedImages) else images[rows]


def changed(images: Images, change: Change) -> Images:
    """Changes pixels, at once if they are in memory, else when they are decoded.

    Args:
        images: In memory or in files.
        change: `(pixels, numbers=) -> pixels`; `numbers` is None for all images in order.

    Returns:
        The images, bit for bit the same either way.
    """
    return images.changed(change) if isinstance(images, StreamedImages) else change(images, numbers=None)
