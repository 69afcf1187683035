"""The point mass: a deterministic encoder."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class PointMass(nn.Module):
    """All of q(z|x) in one point that is linear in the features: the plain autoencoder.

    It has no density. So it gives None for log q(z|x), and there is no KL, no bound and no importance weight
    that could be reported of it.

    Attributes:
        latents: Components of z.
    """

    latents: int

    analytic_kl = False
    has_density = False
    log_prob_anywhere = False
    reparameterized = True
    deterministic = True

    @property
    def noise_size(self) -> int:
        """Nothing is random."""
        return 0

    @nn.compact
    def __call__(self, features: Float[Array, "b f"]) -> Float[Array, "b d"]:
        """The point of each image."""
        return nn.Dense(self.latents, name="point")(features)

    def transform(
        self, parameters: Float[Array, "b d"], noise: Float[Array, "k b 0"]
    ) -> tuple[Float[Array, "k b d"], None]:
        """The point, as often as there are samples, and no density."""
        return jnp.broadcast_to(parameters, (noise.shape[0], *parameters.shape)), None

    def mean(self, parameters: Float[Array, "b d"]) -> Float[Array, "b d"]:
        """The point."""
        return parameters
