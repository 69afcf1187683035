"""Runs a compiled function over all images of a split; no partial batch is lost."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from vae_jax.sharding import split_batch
from vae_jax.vae import Label

PerImage = Callable[[Float[Array, "b h w c"], Int[Array, "b"], Label], Any]


def map_images(
    function: PerImage,
    images: UInt8[np.ndarray, "n h w c"],
    max_value: int,
    batch_size: int,
    mesh: Mesh,
    labels: Int[np.ndarray, "n"] | None = None,
    on_batch: Callable[[int], object] | None = None,
) -> Any:
    """Applies a function to batches of images and joins what it says of each image.

    The last batch is filled up with repetitions of its last image, whose results are dropped, so that one
    compiled function serves all batches.

    Args:
        function: `(x, image_ids, label) -> tree of arrays [B, ...]`.
        images: Pixels from 0 to `max_value`.
        max_value: Largest value a pixel can take.
        batch_size: Images per call; a multiple of the number of devices.
        mesh: Its devices share each batch.
        labels: Classes of the images, for a conditional model.
        on_batch: Told how many images are done after each batch; None lets all batches be dispatched
            before the first is waited for.

    Returns:
        The same tree with NumPy arrays `[N, ...]`.
    """
    results = []
    sharding = split_batch(mesh)
    for start in range(0, len(images), batch_size):
        ids = np.minimum(np.arange(start, start + batch_size), len(images) - 1)
        x = np.asarray(images[ids], np.float32) / np.float32(max_value)
        label = None if labels is None else labels[ids]
        result = function(*jax.device_put((x, ids.astype(np.int32), label), sharding))
        results.append(result)
        if on_batch is not None:
            jax.block_until_ready(result)
            on_batch(min(start + batch_size, len(images)))
    host = jax.device_get(results)
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(images)], *host)
