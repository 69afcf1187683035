"""The point mass: a deterministic encoder."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.posteriors.posterior import Posterior
from vae_jax.shapes import Means, Samples


class PointMass(Posterior):
    """q(z|x) at a single point, linear in the features: the plain autoencoder.

    It has no density: log q(z|x) is None, and there is no KL, bound or importance weight.

    Attributes:
        latents: Dimensions of z: D, or `(h, w, c)` for a map.
    """

    latents: int | tuple[int, int, int]

    has_density = False
    deterministic = True
    takes_maps = True

    @property
    def noise_size(self) -> int:
        """Nothing is random."""
        return 0

    @nn.compact
    def __call__(self, features: Float[Array, "b *f"]) -> Means:
        """The point of each image."""
        return nn.Dense(self.shape[-1], name="point")(features)

    def transform(self, parameters: Means, noise: Float[Array, "k b 0"]) -> tuple[Samples, None]:
        """The point repeated for all samples, and None for the density."""
        return jnp.broadcast_to(parameters, (noise.shape[0], *parameters.shape)), None

    def mean(self, parameters: Means) -> Means:
        """The point."""
        return parameters
