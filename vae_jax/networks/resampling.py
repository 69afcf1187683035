"""Twice as large and half as large: sizes, and the layers that change them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.networks.convolution import Conv

Size = tuple[int, int]

UPSAMPLING = ("transpose", "resize")


def halved_sizes(size: Size, times: int) -> list[Size]:
    """A height and width, and what is left of them after each halving, rounded up as strided convolutions do.

    >>> halved_sizes((28, 20), 3)
    [(28, 20), (14, 10), (7, 5), (4, 3)]
    """
    sizes = [size]
    for _ in range(times):
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def depth_to_space(x: Float[Array, "b h w f4"]) -> Float[Array, "b h2 w2 f"]:
    """Spreads the channels, read as `[2, 2, f]`, over blocks of 2×2 pixels."""
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, 2, 2, channels // 4)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, channels // 4)


class Upsample(nn.Module):
    """Doubles height and width by a learned map, and crops them where half of an odd size was rounded up.

    `transpose` is a transposed convolution, 4×4 with stride 2. It is computed as the 2×2 convolutions of the
    input that its four output phases are: XLA differentiates a dilated convolution several times more slowly
    on CPU. `resize` repeats each pixel and applies a 3×3 convolution, which leaves no checkerboard pattern
    (Odena et al. 2016, distill.pub/2016/deconv-checkerboard) and takes two to three times as long in the forward pass.

    Attributes:
        features: Channels that come out.
        size: Height and width that come out.
        method: `transpose` or `resize`.
        dtype: What is computed in; None for the type of the input.
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
        # Padded by hand: as padding of the convolution it makes XLA's CPU gradient several times slower.
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        phases = nn.Conv(4 * self.features, (2, 2), padding="VALID", use_bias=False, dtype=self.dtype)(padded)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        larger = depth_to_space(phases)[:, 1 : 1 + height, 1 : 1 + width]
        return larger + bias.astype(larger.dtype)
