"""The standard normal prior."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Key

from vae_jax.flows import standard_normal_log_prob


class StandardNormal(nn.Module):
    """`p(z) = N(z; 0, I)`, as in Kingma & Welling 2014.

    Attributes:
        latents: Dimensions of z.
    """

    latents: int

    is_standard_normal = True
    needs_components = False

    @property
    def num_decoded(self) -> int:
        """All of z goes into the decoder."""
        return self.latents

    def log_prob(self, z: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """log p(z) in nats."""
        return standard_normal_log_prob(z)

    def sample(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]:
        """Latents drawn from the prior."""
        return jax.random.normal(key, (num_samples, self.latents))
