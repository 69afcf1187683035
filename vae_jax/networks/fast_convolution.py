"""Convolutions with a fast gradient of the kernel on CPUs."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _convolution(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "i j c o"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "n h2 w2 o"]:
    """A replacement for `lax.conv_general_dilated` in Flax's layer."""
    del options  # dilation and groups aren't supported
    size, window = x.shape[1:3], kernel.shape[:2]
    pads = lax.padtype_to_pads(size, window, strides, padding) if isinstance(padding, str) else padding
    (top, bottom), (left, right) = pads
    return _padded_convolution(x, kernel, (tuple(strides), ((top, bottom), (left, right))))


def _plain(x: Array, kernel: Array, geometry: Any) -> Array:
    strides, pads = geometry
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_LAYOUT)


_padded_convolution = jax.custom_vjp(_plain, nondiff_argnums=(2,))


def _forward(x: Array, kernel: Array, geometry: Any) -> tuple[Array, tuple[Array, Array]]:
    return _plain(x, kernel, geometry), (x, kernel)


def _backward(geometry: Any, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (dx,) = jax.linear_transpose(lambda x: _plain(x, kernel, geometry), x)(dy)
    (strides_h, strides_w), pads = geometry
    height, width, channels, _ = kernel.shape
    num_images, rows, columns, _ = dy.shape

    def by_products(x: Array, dy: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        ends = (rows - 1) * strides_h + 1, (columns - 1) * strides_w + 1

        def product(offset: Array) -> Array:
            window = (num_images, *ends, channels)
            met = lax.dynamic_slice(padded, (0, offset // width, offset % width, 0), window)
            return jnp.einsum("nhwc,nhwo->co", met[:, ::strides_h, ::strides_w], dy)

        # In sequence, so that only one shifted copy of the map is in memory.
        return lax.map(product, jnp.arange(height * width)).reshape(kernel.shape)

    def by_convolution(x: Array, dy: Array) -> Array:
        (found,) = jax.linear_transpose(lambda kernel: _plain(x, kernel, geometry), kernel)(dy)
        return found

    return dx, lax.platform_dependent(x, dy, cpu=by_products, default=by_convolution)


_padded_convolution.defvjp(_forward, _backward)


def Conv(features: int, kernel_size: tuple[int, int], **options: Any) -> nn.Conv:
    """Flax's layer without dilation and groups; on CPUs the gradient of its kernel uses matrix products.

    With x padded, that gradient is one product for each offset in the kernel:
    `dk[i, j] = sum over n, h, w of x[n, s h + i, s w + j, :]^T dy[n, h, w, :]`. On CPUs this makes the training step of
    the residual network more than twice as fast with batches of 32 (docs/performance.md). Strided 4×4 convolutions gain
    nothing, so they use Flax's layer. On other devices XLA's gradient is faster, so it is used there.

    Args:
        features: Channels of the output.
        kernel_size: Height and width of the kernel.
        **options: Of `flax.linen.Conv`.
    """
    return nn.Conv(features, kernel_size, conv_general_dilated=_convolution, **options)
