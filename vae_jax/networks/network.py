"""What an encoder and its decoder have in common."""

import abc
import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]
ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "gelu": nn.gelu, "silu": nn.silu}
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class Network(abc.ABC):
    """An encoder and the decoder that mirrors it.

    Attributes:
        outputs: Height, width and numbers per pixel of the decoder's output.
        latents: Dimensions of z; at each place, if z is a map.
    """

    outputs: tuple[int, int, int]
    latents: int

    @property
    def latent_shape(self) -> int | tuple[int, int, int]:
        """Shape of z: D, or `(h, w, c)` for a map."""
        return self.latents

    @abc.abstractmethod
    def encoder(self) -> nn.Module:
        """From images `[B, H, W, C]` and maybe a context to features: `[B, F]`, or `[B, h, w, F]` for a map."""

    @abc.abstractmethod
    def decoder(self) -> nn.Module:
        """From latents `[B, *latent_shape]`, followed by any context, to the inputs of the likelihood."""
