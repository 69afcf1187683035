"""Residual networks with group normalization, for colour images of 32×32 to 128×128."""

import dataclasses

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vae_jax.networks.conv import ConvNet
from vae_jax.networks.fast_convolution import Conv
from vae_jax.networks.network import ACTIVATIONS, DTYPES, Activation
from vae_jax.networks.precision import at_least_float32
from vae_jax.networks.upsampling import UPSAMPLING, Upsample, first_map, halved_sizes
from vae_jax.settings import setting


def num_groups(channels: int) -> int:
    """Groups for group normalization: the largest divisor of the channels up to 32 that leaves 4 in each.

    A group with a single channel would be normalized to zero where a map has only one pixel.

    >>> num_groups(128), num_groups(48), num_groups(7)
    (32, 12, 1)
    """
    return max(groups for groups in range(1, 33) if channels % groups == 0 and (groups == 1 or channels >= 4 * groups))


class ResidualBlock(nn.Module):
    """`x + conv(act(norm(conv(act(norm(x))))))` with 3×3 convolutions.

    The last convolution starts at zero, so that a new block is the identity.

    Attributes:
        activation: `act` in the formula.
        dtype: Type of the computation; None for that of the input.
    """

    activation: Activation
    dtype: jax.typing.DTypeLike | None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The map with the residual added."""
        channels = x.shape[-1]
        groups = num_groups(channels)
        y = self.activation(nn.GroupNorm(groups, dtype=self.dtype)(x))
        y = Conv(channels, (3, 3), dtype=self.dtype)(y)
        y = self.activation(nn.GroupNorm(groups, dtype=self.dtype)(y))
        return x + Conv(channels, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros)(y)


@dataclasses.dataclass(frozen=True)
class ResNet(ConvNet):
    """Residual blocks with group normalization."""

    channels: tuple[int, ...] = setting(
        (64, 128, 256), "at each resolution of the encoder; the decoder's mirror them", minimum=1, shortest=1
    )
    activation: str = setting("silu", "of the blocks", choices=ACTIVATIONS)
    upsampling: str = setting("resize", "how the decoder doubles a map", choices=UPSAMPLING)
    blocks: int = setting(1, "residual blocks at each resolution", minimum=1, below=129)

    @property
    def halvings(self) -> int:
        """How often the encoder halves height and width."""
        return len(self.channels) - 1

    def encoder(self) -> nn.Module:
        """See `Network`."""
        activation, dtype = ACTIVATIONS[self.activation], DTYPES[self.dtype]
        return ResNetEncoder(self.channels, self.blocks, activation, dtype, self.spatial)

    def decoder(self) -> nn.Module:
        """See `Network`."""
        activation, dtype = ACTIVATIONS[self.activation], DTYPES[self.dtype]
        return ResNetDecoder(self.channels[::-1], self.outputs, self.blocks, activation, self.upsampling, dtype)


class ResNetEncoder(nn.Module):
    """From images to features through residual blocks at decreasing resolutions.

    Attributes:
        hidden: Channels at each resolution, at least one, starting with that of the image. Strided 3×3 convolutions
            between them halve height and width, rounding up.
        blocks: Residual blocks at each resolution.
        activation: Of the blocks.
        dtype: Type of the computation; None for that of the images.
        spatial: Whether the features are the last map; else it is flattened.

    Source:
        He et al., arXiv 1603.05027 (activation before convolution); Wu & He, arXiv 1803.08494 (group norm).
    """

    hidden: tuple[int, ...]
    blocks: int = 1
    activation: Activation = nn.silu
    dtype: jax.typing.DTypeLike | None = None
    spatial: bool = False

    unroll_on_cpu = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], context: Float[Array, "b l"] | None = None) -> Float[Array, "b *f"]:
        """Features of each image.

        Args:
            x: Images.
            context: Further inputs for each image; a learned projection of them is added to every position of the
                first feature map.

        Raises:
            ValueError: If there is no resolution.
        """
        if not self.hidden:
            raise ValueError("a residual encoder needs at least one width in hidden, e.g. (64, 128, 256)")
        for index, channels in enumerate(self.hidden):
            stride = 1 if index == 0 else 2
            x = Conv(channels, (3, 3), strides=(stride, stride), dtype=self.dtype)(x)
            if index == 0 and context is not None:
                x = x + nn.Dense(channels, use_bias=False, dtype=self.dtype, name="context")(context)[:, None, None]
            for _ in range(self.blocks):
                x = ResidualBlock(self.activation, self.dtype)(x)
        x = self.activation(nn.GroupNorm(num_groups(x.shape[-1]), dtype=self.dtype)(x))
        return at_least_float32(x if self.spatial else x.reshape(x.shape[0], -1))


class ResNetDecoder(nn.Module):
    """From latents to one or more numbers per pixel: a dense layer to the smallest map, then blocks and doublings.

    Attributes:
        hidden: Channels at each resolution, from the smallest on, at least one; the last has the size of the image.
        image_shape: Height, width and numbers per pixel of the output.
        blocks: Residual blocks at each resolution.
        activation: Of the blocks.
        upsampling: `transpose` or `resize`; see `Upsample`.
        dtype: Type of the computation; None for that of the latents.
    """

    hidden: tuple[int, ...]
    image_shape: tuple[int, int, int]
    blocks: int = 1
    activation: Activation = nn.silu
    upsampling: str = "resize"
    dtype: jax.typing.DTypeLike | None = None

    unroll_on_cpu = True

    @nn.compact
    def __call__(self, z: Float[Array, "b *z"]) -> Float[Array, "b h w o"]:
        """The inputs of the likelihood for each pixel.

        Args:
            z: Vectors, or maps of the size of the smallest map.

        Raises:
            ValueError: If there is no resolution, or the upsampling is unknown.
        """
        if not self.hidden:
            raise ValueError("a residual decoder needs at least one width in hidden, e.g. (256, 128, 64)")
        height, width, outputs = self.image_shape
        sizes = halved_sizes((height, width), len(self.hidden) - 1)[::-1]
        x = first_map(z, sizes[0], self.hidden[0], self.dtype)
        for index, (channels, size) in enumerate(zip(self.hidden, sizes, strict=True)):
            if index > 0:
                x = Upsample(channels, size, self.upsampling, self.dtype)(x)
            for _ in range(self.blocks):
                x = ResidualBlock(self.activation, self.dtype)(x)
        x = self.activation(nn.GroupNorm(num_groups(x.shape[-1]), dtype=self.dtype)(x))
        return at_least_float32(Conv(outputs, (3, 3), dtype=self.dtype)(x))
