"""Doubling the size of maps, and the sizes after each halving."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.networks.fast_convolution import Conv

Size = tuple[int, int]

UPSAMPLING = ("transpose", "resize")


def halved_sizes(size: Size, times: int) -> list[Size]:
    """A height and width, and the sizes after each halving, rounded up as in strided convolutions.

    >>> halved_sizes((28, 20), 3)
    [(28, 20), (14, 10), (7, 5), (4, 3)]
    """
    sizes = [size]
    for _ in range(times):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def depth_to_space(x: Float[Array, "b h w f4"]) -> Float[Array, "b h2 w2 f"]:
    """Moves the channels, as `[2, 2, f]`, to blocks of 2×2 pixels."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, 2, 2, channels // 4)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)


def first_map(
    z: Float[Array, "b *z"], size: Size, channels: int, dtype: jax.typing.DTypeLike | None
) -> Float[Array, "b h w c"]:
    """The smallest map of a decoder, by a dense layer: from a vector, or at each place of a map of latents."""
    if z.ndim > 2:
        return nn.Dense(channels, dtype=dtype)(z)
    return nn.Dense(size[0] * size[1] * channels, dtype=dtype)(z).reshape(z.shape[0], *size, channels)


class Upsample(nn.Module):
    """Doubles height and width with a learned map, and crops the result where half of an odd size was rounded up.

    `transpose` is a transposed convolution, 4×4 with stride 2. It is computed as a 2×2
    convolution for each of its four output phases, as gradients of a dilated convolution are several times slower on
    CPUs. `resize` repeats each pixel and applies a 3×3 convolution. That avoids checkerboard patterns (Odena et al.
    2016, distill.pub/2016/deconv-checkerboard), but the forward pass takes two to three times as long.

    Attributes:
        features: Channels of the output.
        size: Height and width of the output.
        method: `transpose` or `resize`.
        dtype: Type of the computation; None for that of the input.
    """

    features: int
    size: Size
    method: str
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 f"]:
        """The larger map."""
        height, width = self.size
        if self.method == "resize":
            repeated = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            return Conv(self.features, (3, 3), dtype=self.dtype)(repeated[:, :height, :width])
        if self.method != "transpose":
            raise ValueError(f"upsampling is {self.method!r} but must be one of {', '.join(UPSAMPLING)}")
        # Padding inside the convolution would make its gradient several times slower on CPUs.
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        phases = nn.Conv(4 * self.features, (2, 2), padding="VALID", use_bias=False, dtype=self.dtype)(padded)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        larger = depth_to_space(phases)[:, 1 : 1 + height, 1 : 1 + width]
        return larger + bias.astype(larger.dtype)
