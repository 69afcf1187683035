"""The standard normal prior."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from vae_jax.flows import standard_normal_log_prob
from vae_jax.shapes import Nats, Points, RandomKey


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

    def log_prob(self, z: Points) -> Nats:
        """log p(z) in nats."""
        return standard_normal_log_prob(z)

    def sample(self, key: RandomKey, num_samples: int) -> Float[Array, "n d"]:
        """Latents drawn from the prior."""
        return jax.random.normal(key, (num_samples, self.latents))
