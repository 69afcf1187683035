"""From encoded pictures to 8-bit pixels of the size that is asked for."""

import os
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_GREY = ("1", "L", "LA", "La")


def is_grey(image: Image.Image) -> bool:
    """Whether an opened picture has no colours."""
    return image.mode in _GREY or image.mode.startswith("I;16")


def decoded(file: str | os.PathLike[str] | IO[bytes], grey: bool | None) -> UInt8[np.ndarray, "h w c"]:
    """Decodes a picture (of an animated one, the first frame) and brings it to 8 bits.

    Pixels of 16 bits are rounded to 8; transparency is dropped.

    Args:
        file: What holds it.
        grey: Whether the result has one channel instead of three; None: as the picture itself is.

    Returns:
        The pixels.

    Raises:
        Exception: Whatever Pillow raises for a damaged file; `ValueError` for pixels of 32 bits.
    """
    with Image.open(file) as image:
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


def middle_square(pixels: UInt8[np.ndarray, "h w c"], side: int) -> UInt8[np.ndarray, "side side c"]:
    """Cuts the largest square out of the middle and resizes it.

    Shrinking is antialiased: each new pixel is a mean over old ones whose weights fall off linearly with the
    distance (Pillow's `BILINEAR`), which never leaves the range of the old ones.

    Args:
        pixels: An image.
        side: Height and width of the result.

    Returns:
        The square.
    """
    height, width, channels = pixels.shape
    old = min(height, width)
    top, left = (height - old) // 2, (width - old) // 2
    square = pixels[top : top + old, left : left + old]
    if old == side:
        return square

    def resized(channel: int) -> np.ndarray:
        image = Image.fromarray(np.ascontiguousarray(square[..., channel]))
        return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))

    return np.stack([resized(channel) for channel in range(channels)], axis=-1)
