"""Decodes pictures into 8-bit pixels of a given size."""

import dataclasses
import io
import os
import stat
import threading
import warnings
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vae_jax.errors import DataError

# 8192 x 8192: larger pictures are refused. As RGB one takes 200 MB, and several are decoded at a time.
MOST_PIXELS = 2**26
# Pillow decides by content, and would run Ghostscript for a PostScript program named .png.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_GREY = ("1", "L", "LA", "La")
# Warning filters belong to the whole process.
_FILTERING = threading.Lock()


def decoded(file: str | os.PathLike[str] | IO[bytes] | io.BytesIO, grey: bool | None) -> UInt8[np.ndarray, "h w c"]:
    """Decodes a picture (the first frame of an animation) to 8 bits.

    Pixels of 16 bits are rounded to 8; transparency is dropped. The declared size is checked before memory is taken.

    Args:
        file: Path or open file.
        grey: Whether the result has one channel instead of three; None: as the picture has.

    Returns:
        The pixels.

    Raises:
        Exception: Whatever Pillow raises for a damaged file; `ValueError` for pixels of 32 bits, or for more than
            `MOST_PIXELS` pixels.
    """
    with opened(file) as image:
        if image.mode in ("I", "F"):
            raise ValueError(f"its pixels are of 32 bits (mode {image.mode}), not of 8")
        of_16_bits = image.mode.startswith("I;16")
        grey = of_16_bits or image.mode in _GREY if grey is None else grey
        if of_16_bits:
            pixels: Any = ((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8)
            return np.repeat(pixels[..., np.newaxis], 1 if grey else 3, axis=-1)
        # Otherwise Pillow warns of palettes with transparency.
        whole = image.convert("RGBA") if "transparency" in image.info else image
        pixels = np.asarray(whole.convert("L" if grey else "RGB"))
        return pixels[..., np.newaxis] if grey else pixels


def opened(file: str | os.PathLike[str] | IO[bytes] | io.BytesIO) -> Image.Image:
    """Opens a picture of one of `FORMATS` without decoding it.

    Raises:
        Exception: Whatever Pillow raises for a damaged file; `ValueError` for too many pixels or if it
            is not a regular file.
    """
    if isinstance(file, str | os.PathLike) and not stat.S_ISREG(os.stat(file).st_mode):
        raise ValueError("it is a pipe or a device")
    try:
        with _FILTERING, warnings.catch_warnings():
            # Damaged metadata, such as the place where a photo was taken, doesn't matter here.
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            image.close()
            raise Image.DecompressionBombError
    except Image.DecompressionBombError as error:
        limit = f"{MOST_PIXELS:,} pixels (8192 x 8192)"
        raise ValueError(f"its declared size is more than the limit of {limit}") from error
    return image


@dataclasses.dataclass(frozen=True)
class Sizing:
    """The size that images are brought to.

    Attributes:
        side: Height and width; 0 leaves images as they are.
        fit: `crop` resizes the middle square, `resize` the whole image, whatever its shape.
    """

    side: int = 0
    fit: str = "crop"

    def __call__(self, pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h2 w2 c"]:
        """The image in that size."""
        if not self.side:
            return pixels
        return middle_square(pixels, self.side) if self.fit == "crop" else resized(pixels, self.side)

    def __str__(self) -> str:
        """A part of file names; 0 if images stay as they are."""
        return f"{self.side}-{self.fit}" if self.side and self.fit != "crop" else str(self.side)


AS_THEY_ARE = Sizing()


def size_text(shape: Sequence[int]) -> str:
    """A shape for messages: `8x8x1`."""
    return "x".join(map(str, shape))


def check_size(shape: Sequence[int], first: Sequence[int], name: str) -> None:
    """Checks that an image has the size of the first one.

    Args:
        shape: Its shape.
        first: The shape of the first image.
        name: Its name, for the error message.

    Raises:
        UserError: If not.
    """
    if tuple(shape) != tuple(first):
        raise DataError(
            f"images differ in size: {name} is {size_text(shape)}, but the first one {size_text(first)}",
            "bring them to one size with --config.data.image_size=64, say",
        )


def middle_square(pixels: UInt8[np.ndarray, "h w c"], side: int) -> UInt8[np.ndarray, "side side c"]:
    """Cuts out the largest square in the middle and resizes it.

    Args:
        pixels: An image.
        side: Height and width of the result.
    """
    height, width, _ = pixels.shape
    old = min(height, width)
    top, left = (height - old) // 2, (width - old) // 2
    return resized(pixels[top : top + old, left : left + old], side)


def resized(pixels: UInt8[np.ndarray, "h w c"], side: int) -> UInt8[np.ndarray, "side side c"]:
    """Resizes an image to a square.

    Shrinking is antialiased: each new pixel is a mean over old ones whose weights fall off linearly with the
    distance (Pillow's `BILINEAR`), which never leaves the range of the old ones.

    Args:
        pixels: An image.
        side: Height and width of the result.
    """
    if pixels.shape[:2] == (side, side):
        return pixels

    channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(pixels, -1, 0)]
    small = [np.asarray(channel.resize((side, side), Image.Resampling.BILINEAR)) for channel in channels]
    return np.stack(small, axis=-1)
