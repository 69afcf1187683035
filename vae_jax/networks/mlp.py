"""Fully connected encoder and decoder, as in the experiments of Kingma & Welling (arXiv 1312.6114)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.networks.precision import at_least_float32

Activation = Callable[[jax.Array], jax.Array]


class MLPEncoder(nn.Module):
    """Images to features, through fully connected layers.

    Attributes:
        hidden: Width of each layer; `()` passes the flattened image on, so that the heads are linear maps.
        activation: Applied after each layer.
        dtype: What is computed in; None for the type of the images.
    """

    hidden: tuple[int, ...]
    activation: Activation = nn.relu
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], context: Float[Array, "b l"] | None = None) -> Float[Array, "b f"]:
        """Features of each image.

        Args:
            x: Images.
            context: What else is known of each; concatenated to the flattened image.
        """
        features = x.reshape(x.shape[0], -1)
        if context is not None:
            features = jnp.concatenate([features, context], axis=-1)
        for width in self.hidden:
            features = self.activation(nn.Dense(width, dtype=self.dtype)(features))
        return at_least_float32(features)


class MLPDecoder(nn.Module):
    """Latents to one or more numbers per pixel, through fully connected layers.

    Attributes:
        hidden: Width of each layer, from the latents on; `()` is a linear map.
        image_shape: Height, width and numbers per pixel of what comes out.
        activation: Applied after each hidden layer.
        dtype: What is computed in; None for the type of the latents.
    """

    hidden: tuple[int, ...]
    image_shape: tuple[int, int, int]
    activation: Activation = nn.relu
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, z: Float[Array, "b d"]) -> Float[Array, "b h w o"]:
        """What the likelihood needs to know of each pixel."""
        features = z
        for width in self.hidden:
            features = self.activation(nn.Dense(width, dtype=self.dtype)(features))
        height, width, outputs = self.image_shape
        flat = nn.Dense(height * width * outputs, dtype=self.dtype)(features)
        return at_least_float32(jnp.reshape(flat, (z.shape[0], *self.image_shape)))
