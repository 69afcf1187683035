"""Distances between sets of images: by features (Fréchet), and to the nearest of another set."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import sklearn.neighbors
from jaxtyping import Array, Float, Int

from vae_jax.shapes import ImageBatch

Features = Callable[[Float[np.ndarray, "n *event"]], Float[np.ndarray, "n f"]]
"""Images with pixels in [0, 1] to one vector each."""

_CHANNELS = (32, 64)
_KERNEL = 3
_GRID = 2
_LAYOUT = ("NHWC", "HWIO", "NHWC")
_IMAGES_AT_ONCE = 500


def as_maps(values: Float[np.ndarray, "n *event"]) -> Float[np.ndarray, "n h w c"]:
    """Rows as images one pixel high, and 0 for values that are missing."""
    return np.nan_to_num(values[:, None, :, None] if values.ndim == 2 else values)


def random_convolutions(image_shape: tuple[int, ...], seed: int = 0) -> Features:
    """Fixed features that need no training: two layers of random convolutions, pooled over a 2×2 grid.

    Each layer is a convolution with normal weights of variance 2 / fan-in, a rectifier and mean pooling over 2×2
    (where the image is large enough). Distances by these features compare models of the same data in one
    project; they have nothing to do with the Inception network and its FID.

    Args:
        image_shape: Height, width, channels; or the length of a row.
        seed: What the weights are drawn from.

    Returns:
        A function to 256 features per image (fewer where the image is a single row or column).
    """
    rng = np.random.default_rng(seed)
    inputs, kernels = image_shape[2] if len(image_shape) > 2 else 1, []
    for channels in _CHANNELS:
        fan_in = _KERNEL * _KERNEL * inputs
        kernel = rng.normal(0.0, np.sqrt(2.0 / fan_in), (_KERNEL, _KERNEL, inputs, channels))
        kernels.append(np.asarray(kernel, np.float32))
        inputs = channels

    @jax.jit
    def of_batch(x: ImageBatch) -> Float[Array, "b f"]:
        for kernel in kernels:
            x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_LAYOUT))
            if min(x.shape[1:3]) >= 2 * _GRID:
                height, width = (size // 2 * 2 for size in x.shape[1:3])
                halves = x[:, :height, :width].reshape(len(x), height // 2, 2, width // 2, 2, x.shape[-1])
                x = jnp.mean(halves, axis=(2, 4))
        rows = [jnp.mean(part, axis=1) for part in jnp.array_split(x, min(_GRID, x.shape[1]), axis=1)]
        cells = [jnp.mean(part, axis=1) for row in rows for part in jnp.array_split(row, min(_GRID, row.shape[1]), 1)]
        return jnp.concatenate(cells, axis=-1)

    def features(images: Float[np.ndarray, "n *event"]) -> Float[np.ndarray, "n f"]:
        parts = [
            np.asarray(of_batch(jnp.asarray(as_maps(images[start : start + _IMAGES_AT_ONCE]), jnp.float32)))
            for start in range(0, len(images), _IMAGES_AT_ONCE)
        ]
        return np.concatenate(parts)

    return features


def frechet_distance(one: Float[np.ndarray, "n f"], other: Float[np.ndarray, "m f"]) -> float:
    """Squared Fréchet distance of two sets of features, each as the Gaussian with its moments.

    `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`, in squared units of the features. Finite sets are always some way
    apart, the farther the fewer: compare with that of two sets of the same kind and sizes.

    Args:
        one: At least 2 vectors.
        other: At least 2 vectors.

    Raises:
        ValueError: If a set has fewer.

    Source:
        Dowson & Landau 1982, J. Multivariate Analysis 12, eq. 4.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError("a covariance needs at least 2 images in each set")
    moments = [(np.mean(part, axis=0, dtype=np.float64), np.cov(part.T.astype(np.float64))) for part in (one, other)]
    (mean, covariance), (other_mean, other_covariance) = [(m, np.atleast_2d(c)) for m, c in moments]
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # C1^(1/2) C2 C1^(1/2) is symmetric and has the eigenvalues of C1 C2.
    product = np.linalg.eigvalsh(root @ other_covariance @ root)
    cross = np.sum(np.sqrt(np.maximum(product, 0.0)))
    squared = np.sum((mean - other_mean) ** 2) + np.trace(covariance) + np.trace(other_covariance) - 2.0 * cross
    return float(max(squared, 0.0))


def nearest_images(
    queries: Float[np.ndarray, "n *event"], images: Float[np.ndarray, "m *event"]
) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """The Euclidean distance of each query to the nearest of `images`, in the unit of the pixels; and which that is."""
    search = sklearn.neighbors.NearestNeighbors(n_neighbors=1, algorithm="brute").fit(images.reshape(len(images), -1))
    distance, index = search.kneighbors(queries.reshape(len(queries), -1))
    return distance[:, 0], index[:, 0]
