"""Runs a compiled function over all images of a split, and sums over samples of z, in parts of bounded memory."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int, Shaped

from vae_jax.data.streamed import Images, StreamedImages
from vae_jax.models import Batch
from vae_jax.numerics import LogMeanExp, Moments
from vae_jax.shapes import Count, ImageBatch, ImageIds, PerSample
from vae_jax.sharding import gathered, put, split_batch

Given = Shaped[np.ndarray, "n *c"] | None
ImageSource = Images | Float32[np.ndarray, "n *event"] | Shaped[Array, "n *event"]
OfImages = Callable[[Batch, ImageIds], Any]


@functools.partial(jax.jit, static_argnames="max_value")
def _scaled_rows(images: Shaped[Array, "n *event"], ids: ImageIds, max_value: int) -> ImageBatch:
    # CPUs gather whole rows several times faster than images of three axes.
    rows = images.reshape(len(images), -1)[ids].reshape(-1, *images.shape[1:])
    return rows.astype(jnp.float32) / max_value


_masked = jax.jit(Batch.masked)


def map_images(
    function: OfImages,
    images: ImageSource,
    max_value: int,
    batch_size: int,
    mesh: Mesh,
    given: Given = None,
    on_batch: Callable[[int], object] | None = None,
) -> Any:
    """Applies a function to all images, one batch after the other, and joins the results.

    The last batch is filled up with repetitions of its last image, whose results are dropped, so that one compiled
    function serves all batches. While the results of a batch are read the next one is on its way.

    Args:
        function: `(batch, image_ids) -> tree of arrays [B, ...]`.
        images: Pixels from 0 to `max_value`, as levels or as the model sees them: in memory, in files, or whole on each
            device.
        max_value: Largest value a pixel can take.
        batch_size: Images per call; a multiple of the number of devices.
        mesh: Its devices share each batch.
        given: Class or context of each, for a conditional model.
        on_batch: Called with the number of images that are done, after each batch.

    Returns:
        The function's tree with NumPy arrays `[N, ...]`.
    """
    on_devices, missing = isinstance(images, jax.Array), has_missing(images)

    def dispatch(first: int) -> Any:
        rows = np.minimum(np.arange(first, first + batch_size), len(images) - 1)
        x = None if on_devices else np.asarray(images[rows], np.float32) / np.float32(max_value)
        context = None if given is None else given[rows]
        x, ids, context = put((x, rows.astype(np.int32), context), split_batch(mesh))
        batch = Batch(_scaled_rows(images, ids, max_value) if on_devices else x, context=context)
        return function(_masked(batch) if missing else batch, ids)

    starts = range(0, len(images), batch_size)
    parts, following = [], dispatch(starts[0])
    for first in starts:
        current, following = following, dispatch(first + batch_size) if first + batch_size < len(images) else None
        done = min(first + batch_size, len(images))
        parts.append(jax.tree.map(lambda part, count=done - first: part[:count], gathered(current, mesh)))
        if on_batch is not None:
            on_batch(done)
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def has_missing(images: ImageSource) -> bool:
    """Whether any value is NaN, which only floats can be; files may always have some."""
    is_float = images.dtype.kind == "f"
    return is_float and (isinstance(images, StreamedImages) or bool(np.isnan(np.asarray(images)).any()))


def values_per_example(images: ImageSource) -> float:
    """How many values of an example are observed, on average: what nats are divided by for bits per dimension."""
    values = math.prod(images.shape[1:])
    return values if not has_missing(images) else values * float(np.mean(~np.isnan(np.asarray(images))))


def sum_over_samples(
    terms_of: Callable[[Int[Array, "k"]], tuple[PerSample, dict[str, PerSample]]],
    num_samples: int,
    samples_per_chunk: int,
) -> tuple[LogMeanExp, dict[str, Moments]]:
    """Sums log-weights and other terms over samples of z, a chunk at a time; to be called inside a compiled function.

    Args:
        terms_of: Numbers of samples to their log-weights and to other terms by name.
        num_samples: Samples per image (K).
        samples_per_chunk: How many of them are held in memory at a time.

    Returns:
        The sums of the weights, and the moments of each term.
    """
    log_weights, terms = jax.eval_shape(terms_of, jnp.arange(samples_per_chunk))
    num_images, dtype = log_weights.shape[1], log_weights.dtype

    def add_chunk(chunk: Count, sums: tuple[LogMeanExp, dict[str, Moments]]) -> Any:
        weights, moments = sums
        sample_ids = chunk * samples_per_chunk + jnp.arange(samples_per_chunk)
        valid = (sample_ids < num_samples).astype(dtype)
        log_weights, terms = terms_of(sample_ids)
        moments = {name: moments[name].add(values, valid, weights.count) for name, values in terms.items()}
        return weights.add(log_weights, valid), moments

    start = LogMeanExp.empty(num_images, dtype), {name: Moments.empty(num_images, dtype) for name in terms}
    return jax.lax.fori_loop(0, -(-num_samples // samples_per_chunk), add_chunk, start)
