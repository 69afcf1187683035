"""From encoded pictures to 8-bit pixels of the size that is asked for."""

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

FITS = ("crop", "resize")
# 8192 x 8192: a larger picture isn't decoded. As RGB one takes 200 MB, and several are decoded at a time.
MOST_PIXELS = 2**26
# Pillow goes by the content of a file, and would call Ghostscript for a PostScript program named .png.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_GREY = ("1", "L", "LA", "La")
# Filters of warnings are those of the process.
_FILTERING = threading.Lock()


def is_grey(image: Image.Image) -> bool:
    """Whether an opened picture has no colours."""
    return image.mode in _GREY or image.mode.startswith("I;16")


def decoded(file: str | os.PathLike[str] | IO[bytes] | io.BytesIO, grey: bool | None) -> UInt8[np.ndarray, "h w c"]:
    """Decodes a picture (of an animated one, the first frame) and brings it to 8 bits.

    Pixels of 16 bits are rounded to 8; transparency is dropped. A picture is refused for its size by what it says of
    itself, before memory is taken for it.

    Args:
        file: What holds it.
        grey: Whether the result has one channel instead of three; None: as the picture itself is.

    Returns:
        The pixels.

    Raises:
        Exception: Whatever Pillow raises for a damaged file; `ValueError` for pixels of 32 bits, or more than
            `MOST_PIXELS` of them.
    """
    with opened(file) as image:
        grey = is_grey(image) if grey is None else grey
        if image.mode in ("I", "F"):
            raise ValueError(f"its pixels are of 32 bits (mode {image.mode}), not of 8")
        if image.mode.startswith("I;16"):
            pixels: Any = ((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8)
            return np.repeat(pixels[..., np.newaxis], 1 if grey else 3, axis=-1)
        # Pillow warns of palettes with transparency unless they come this way.
        whole = image.convert("RGBA") if "transparency" in image.info else image
        pixels = np.asarray(whole.convert("L" if grey else "RGB"))
        return pixels[..., np.newaxis] if grey else pixels


def opened(file: str | os.PathLike[str] | IO[bytes] | io.BytesIO) -> Image.Image:
    """Opens a picture of one of `FORMATS`, of which nothing is decoded yet.

    Raises:
        Exception: Whatever Pillow raises for a damaged file; `ValueError` for too many pixels and for what is no file.
    """
    if isinstance(file, str | os.PathLike) and not stat.S_ISREG(os.stat(file).st_mode):
        raise ValueError("it is a pipe or a device")
    try:
        with _FILTERING, warnings.catch_warnings():
            # What is damaged beside the pixels, such as the place where a photo was taken, doesn't matter here.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(_TOO_LARGE.format("far")) from error
    if image.width * image.height > MOST_PIXELS:
        size = f"{image.width} x {image.height},"
        image.close()
        raise ValueError(_TOO_LARGE.format(size))
    return image


_TOO_LARGE = f"it is said to have {{}} more than the {MOST_PIXELS:,} pixels that are decoded (8192 x 8192)"


@dataclasses.dataclass(frozen=True)
class Sizing:
    """The size that images are brought to.

    Attributes:
        side: Height and width; 0 leaves images as they are.
        fit: `crop` cuts the middle square before it resizes, `resize` takes the whole image, whatever its shape.
    """

    side: int = 0
    fit: str = "crop"

    def __call__(self, pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h2 w2 c"]:
        """The image in that size."""
        if not self.side:
            return pixels
        return middle_square(pixels, self.side) if self.fit == "crop" else resized(pixels, self.side)

    def __str__(self) -> str:
        """What tells it from others in names of files; nothing where images stay as they are."""
        return "" if not self.side else str(self.side) if self.fit == "crop" else f"{self.side}-{self.fit}"


AS_THEY_ARE = Sizing()


def size_text(shape: Sequence[int]) -> str:
    """A shape for messages: `8x8x1`."""
    return "x".join(map(str, shape))


def middle_square(pixels: UInt8[np.ndarray, "h w c"], side: int) -> UInt8[np.ndarray, "side side c"]:
    """Cuts the largest square out of the middle and resizes it.

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

    def of_channel(channel: int) -> np.ndarray:
        image = Image.fromarray(np.ascontiguousarray(pixels[..., channel]))
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))

    return np.stack([of_channel(channel) for channel in range(pixels.shape[-1])], axis=-1)
