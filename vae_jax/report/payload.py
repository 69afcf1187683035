"""What goes into a page for its scripts: arrays and pictures as text inside JSON."""

import base64
import dataclasses
import io
import json
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from vae_jax.pictures import as_strips

_COLUMNS = 16
# Colours of photographs compress tenfold where a difference that nobody sees is allowed.
_QUALITY = 92


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Many images of one size as one picture.

    Attributes:
        images: Values in [0, 1]; what lies outside is cut off. Or rows of any numbers, shown as strips.
    """

    images: Float[np.ndarray, "n *event"]

    def encoded(self, factor: int) -> dict[str, Any]:
        """The picture as a data URI, every side divided by `factor` and rounded up.

        Grey pictures are lossless PNG, coloured ones WebP; of any number of channels but three the first is shown.
        """
        images = np.nan_to_num(as_strips(self.images) if self.images.ndim == 2 else self.images)
        pixels = np.round(255.0 * np.clip(images, 0.0, 1.0)).astype(np.uint8)
        pixels = pixels if pixels.shape[-1] == 3 else pixels[..., :1]
        if factor > 1:
            pixels = np.stack([_smaller(image, factor) for image in pixels])
        count, height, width, channels = pixels.shape
        columns = min(_COLUMNS, count)
        rows = -(-count // columns)
        canvas = np.zeros((rows * columns, height, width, channels), np.uint8)
        canvas[:count] = pixels
        canvas = canvas.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
        canvas = canvas.reshape(rows * height, columns * width, channels)
        grey = channels == 1
        file = io.BytesIO()
        picture = Image.fromarray(canvas[..., 0] if grey else canvas)
        picture.save(file, format="PNG" if grey else "WEBP", quality=_QUALITY)
        kind = "png" if grey else "webp"
        return {
            "source": f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}",
            "columns": columns,
            "width": width,
            "height": height,
        }


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array of float16 or float32 as base64 of its little-endian bytes, row by row."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        "type": array.dtype.name,
        "shape": list(array.shape),
        "base64": base64.b64encode(little.tobytes()).decode("ascii"),
    }


def to_json(content: Any, most_characters: int) -> str:
    """JSON that can stand inside a `<script>` element whatever the texts in it are.

    Args:
        content: Lists, dictionaries, numbers, texts, and `Sheet`s.
        most_characters: Pictures are made smaller, all by the same whole factor, until the text is no longer than this.
    """
    longest_side = max([1, *(max(sheet.images.shape[1:3]) for sheet in _sheets(content))])
    for factor in range(1, longest_side + 1):
        text = json.dumps(content, default=lambda sheet, by=factor: sheet.encoded(by), allow_nan=False)
        if len(text) <= most_characters:
            break
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _sheets(content: Any) -> list[Sheet]:
    if isinstance(content, Sheet):
        return [content]
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [sheet for part in parts for sheet in _sheets(part)]


def _smaller(image: np.ndarray, factor: int) -> np.ndarray:
    height, width, channels = image.shape
    size = -(-width // factor), -(-height // factor)
    picture = Image.fromarray(image if channels == 3 else image[..., 0]).resize(size, Image.Resampling.BOX)
    return np.asarray(picture).reshape(size[1], size[0], channels)
