"""Fully connected encoder and decoder, as in the experiments of Kingma & Welling (arXiv 1312.6114)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.networks.network import ACTIVATIONS, DTYPES, Activation, Network
from vae_jax.networks.precision import at_least_float32
from vae_jax.settings import setting


@dataclasses.dataclass(frozen=True)
class MLP(Network):
    """Fully connected encoder and decoder."""

    hidden: tuple[int, ...] = setting((200,), "widths of the encoder; the decoder's mirror them", minimum=1)
    activation: str = setting("relu", "between layers", choices=ACTIVATIONS)
    dtype: str = setting("float32", "what is computed in; parameters are float32", choices=DTYPES)

    def encoder(self) -> nn.Module:
        """See `Network`."""
        return MLPEncoder(self.hidden, ACTIVATIONS[self.activation], DTYPES[self.dtype])

    def decoder(self) -> nn.Module:
        """See `Network`."""
        return MLPDecoder(self.hidden[::-1], self.outputs, ACTIVATIONS[self.activation], DTYPES[self.dtype])


class MLPEncoder(nn.Module):
    """From images to features through fully connected layers.

    Attributes:
        hidden: Width of each layer; `()` returns the flattened image, so that the posterior is linear in it.
        activation: Applied after each layer.
        dtype: Type of the computation; None for that of the images.
    """

    hidden: tuple[int, ...]
    activation: Activation = nn.relu
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], context: Float[Array, "b l"] | None = None) -> Float[Array, "b f"]:
        """Features of each image.

        Args:
            x: Images.
            context: Further inputs for each image; appended to the flattened image.
        """
        features = x.reshape(x.shape[0], -1)
        if context is not None:
            features = jnp.concatenate([features, context], axis=-1)
        for width in self.hidden:
            features = self.activation(nn.Dense(width, dtype=self.dtype)(features))
        return at_least_float32(features)


class MLPDecoder(nn.Module):
    """From latents to one or more numbers per pixel, through fully connected layers.

    Attributes:
        hidden: Width of each layer, from the latents on; `()` for a linear map.
        image_shape: Height, width and numbers per pixel of the output.
        activation: Applied after each hidden layer.
        dtype: Type of the computation; None for that of the latents.
    """

    hidden: tuple[int, ...]
    image_shape: tuple[int, int, int]
    activation: Activation = nn.relu
    dtype: jax.typing.DTypeLike | None = None

    fully_connected = True

    @nn.compact
    def __call__(self, z: Float[Array, "b d"]) -> Float[Array, "b h w o"]:
        """The inputs of the likelihood for each pixel."""
        features = z
        for width in self.hidden:
            features = self.activation(nn.Dense(width, dtype=self.dtype)(features))
        height, width, outputs = self.image_shape
        flat = nn.Dense(height * width * outputs, dtype=self.dtype)(features)
        return at_least_float32(jnp.reshape(flat, (z.shape[0], *self.image_shape)))
