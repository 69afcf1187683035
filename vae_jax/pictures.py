"""Arrays to grids to PNG files."""

import pathlib

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from vae_jax.files import replacing

_GAP = 1
_SMALLEST_SIDE = 56


def grid(images: Float[np.ndarray, "n *event"], columns: int) -> UInt8[np.ndarray, "height width c"]:
    """Lays images out in rows with a thin gap between them.

    Args:
        images: Values in [0, 1]; what lies outside is cut off, and NaN is grey. Or rows of any numbers.
        columns: Images per row.

    Returns:
        One picture; small images are enlarged by a whole factor so that they can be seen.
    """
    if images.ndim == 2:
        images = as_strips(images)
    factor = -(-_SMALLEST_SIDE // max(images.shape[1:3]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    canvas = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels), 0.5)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        canvas[top : top + height, left : left + width] = image
    return np.round(255.0 * np.clip(np.nan_to_num(canvas, nan=0.5), 0.0, 1.0)).astype(np.uint8)


def as_strips(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 1 d 1"]:
    """Rows as pictures one pixel high, from the smallest number (black) to the largest (white)."""
    low, high = np.nanmin(rows), np.nanmax(rows)
    return (rows[:, None, :, None] - low) / max(high - low, 1e-30)


def side_by_side(
    originals: Float[np.ndarray, "n *event"], reconstructions: Float[np.ndarray, "n *event"], pairs_per_row: int
) -> UInt8[np.ndarray, "height width c"]:
    """A grid in which each original stands left of its reconstruction."""
    pairs = np.stack([originals, reconstructions], axis=1)
    return grid(pairs.reshape(-1, *originals.shape[1:]), 2 * pairs_per_row)


def write_png(
    path: pathlib.Path, picture: UInt8[np.ndarray, "height width c"], mend: str = "choose another place"
) -> None:
    """Writes a picture, whole or not at all.

    Args:
        path: Where to.
        picture: Three channels are red, green and blue; of any other number the first is shown in grey.
        mend: What the user can do where it can't be written.

    Raises:
        UserError: If the file system doesn't take it.
    """
    image = Image.fromarray(picture if picture.shape[-1] == 3 else picture[..., 0])
    with replacing(path, mend) as unfinished:
        image.save(unfinished, format="PNG")
