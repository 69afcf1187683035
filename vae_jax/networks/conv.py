"""Strided convolutions and their mirror image: the classic convolutional autoencoder."""

import dataclasses

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vae_jax.networks.network import ACTIVATIONS, DTYPES, Activation, Network
from vae_jax.networks.precision import at_least_float32
from vae_jax.networks.upsampling import UPSAMPLING, Upsample, first_map, halved_sizes
from vae_jax.settings import setting


@dataclasses.dataclass(frozen=True)
class ConvNet(Network):
    """Strided convolutions, and transposed ones."""

    channels: tuple[int, ...] = setting(
        (32, 64), "of each of the encoder's maps; the decoder's mirror them", minimum=1, shortest=1
    )
    activation: str = setting("relu", "between layers", choices=ACTIVATIONS)
    upsampling: str = setting("transpose", "how the decoder doubles a map", choices=UPSAMPLING)
    spatial: bool = setting(False, "whether z is a map of the size of the smallest map, not a vector")
    dtype: str = setting("float32", "what is computed in; parameters are float32", choices=DTYPES)

    @property
    def halvings(self) -> int:
        """How often the encoder halves height and width."""
        return len(self.channels)

    @property
    def latent_shape(self) -> int | tuple[int, int, int]:
        """See `Network`."""
        size = halved_sizes(self.outputs[:2], self.halvings)[-1]
        return (*size, self.latents) if self.spatial else self.latents

    def encoder(self) -> nn.Module:
        """See `Network`."""
        return ConvEncoder(self.channels, ACTIVATIONS[self.activation], DTYPES[self.dtype], self.spatial)

    def decoder(self) -> nn.Module:
        """See `Network`."""
        activation, dtype = ACTIVATIONS[self.activation], DTYPES[self.dtype]
        return ConvDecoder(self.channels[::-1], self.outputs, activation, self.upsampling, dtype)


class ConvEncoder(nn.Module):
    """From images to features through 4×4 convolutions with stride 2.

    Attributes:
        hidden: Channels of each layer, at least one; each layer halves height and width, rounding up.
        activation: Applied after each layer.
        dtype: Type of the computation; None for that of the images.
        spatial: Whether the features are the last map; else it is flattened.

    Source:
        The layers of DCGAN's discriminator (Radford et al., arXiv 1511.06434), without normalization.
    """

    hidden: tuple[int, ...]
    activation: Activation = nn.relu
    dtype: jax.typing.DTypeLike | None = None
    spatial: bool = False

    unroll_on_cpu = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], context: Float[Array, "b l"] | None = None) -> Float[Array, "b *f"]:
        """Features of each image.

        Args:
            x: Images.
            context: Further inputs for each image; a learned projection of them is added to every position of the
                first feature map, before the activation.

        Raises:
            ValueError: If there is no layer.
        """
        if not self.hidden:
            raise ValueError("a convolutional encoder needs at least one width in hidden, e.g. (32, 64)")
        for index, channels in enumerate(self.hidden):
            x = nn.Conv(channels, (4, 4), strides=(2, 2), dtype=self.dtype)(x)
            if index == 0 and context is not None:
                x = x + nn.Dense(channels, use_bias=False, dtype=self.dtype, name="context")(context)[:, None, None]
            x = self.activation(x)
        return at_least_float32(x if self.spatial else x.reshape(x.shape[0], -1))


class ConvDecoder(nn.Module):
    """From latents to one or more numbers per pixel: a dense layer to the smallest map, then doublings of its size.

    Attributes:
        hidden: Channels of each map, from the smallest on, at least one; each is followed by a doubling.
        image_shape: Height, width and numbers per pixel of the output.
        activation: Applied to each map before its doubling.
        upsampling: `transpose` or `resize`; see `Upsample`.
        dtype: Type of the computation; None for that of the latents.

    Source:
        The layers of DCGAN's generator (Radford et al., arXiv 1511.06434), without normalization.
    """

    hidden: tuple[int, ...]
    image_shape: tuple[int, int, int]
    activation: Activation = nn.relu
    upsampling: str = "transpose"
    dtype: jax.typing.DTypeLike | None = None

    unroll_on_cpu = True

    @nn.compact
    def __call__(self, z: Float[Array, "b *z"]) -> Float[Array, "b h w o"]:
        """The inputs of the likelihood for each pixel.

        Args:
            z: Vectors, or maps of the size of the smallest map.

        Raises:
            ValueError: If there is no layer, or the upsampling is unknown.
        """
        if not self.hidden:
            raise ValueError("a convolutional decoder needs at least one width in hidden, e.g. (64, 32)")
        height, width, outputs = self.image_shape
        *larger, smallest = halved_sizes((height, width), len(self.hidden))
        x = first_map(z, smallest, self.hidden[0], self.dtype)
        for channels, size in zip((*self.hidden[1:], outputs), reversed(larger), strict=True):
            x = Upsample(channels, size, self.upsampling, self.dtype)(self.activation(x))
        return at_least_float32(x)
