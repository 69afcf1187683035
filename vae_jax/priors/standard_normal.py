"""The standard normal prior."""

import jax
from jaxtyping import Array, Float

from vae_jax.flows import standard_normal_log_prob
from vae_jax.priors.prior import Prior
from vae_jax.shapes import Nats, Points, RandomKey


class StandardNormal(Prior):
    """`p(z) = N(z; 0, I)`, as in Kingma & Welling 2014.

    Attributes:
        latents: Dimensions of z.
    """

    latents: int

    is_standard_normal = True

    def log_prob(self, z: Points) -> Nats:
        """log p(z) in nats."""
        return standard_normal_log_prob(z)

    def sample(self, key: RandomKey, num_samples: int) -> Float[Array, "n d"]:
        """Latents drawn from the prior."""
        return jax.random.normal(key, (num_samples, self.latents))
