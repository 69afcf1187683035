"""Fully connected encoder and decoder, as in the experiments of Kingma & Welling (arXiv 1312.6114)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Activation = Callable[[jax.Array], jax.Array]


class MLPEncoder(nn.Module):
    """Images to features, through fully connected layers.

    Attributes:
        hidden: Width of each layer; `()` passes the flattened image on, so that the heads are linear maps.
        activation: Applied after each layer.
    """

    hidden: tuple[int, ...]
    activation: Activation = nn.relu

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b f"]:
        """Features of each image."""
        features = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            features = self.activation(nn.Dense(width)(features))
        return features


class MLPDecoder(nn.Module):
    """Latents to one or more numbers per pixel, through fully connected layers.

    Attributes:
        hidden: Width of each layer, from the latents on; `()` is a linear map.
        image_shape: Height, width and numbers per pixel of what comes out.
        activation: Applied after each hidden layer.
    """

    hidden: tuple[int, ...]
    image_shape: tuple[int, int, int]
    activation: Activation = nn.relu

    @nn.compact
    def __call__(self, z: Float[Array, "b d"]) -> Float[Array, "b h w o"]:
        """What the likelihood needs to know of each pixel."""
        features = z
        for width in self.hidden:
            features = self.activation(nn.Dense(width)(features))
        height, width, outputs = self.image_shape
        flat = nn.Dense(height * width * outputs)(features)
        return jnp.reshape(flat, (z.shape[0], *self.image_shape))
