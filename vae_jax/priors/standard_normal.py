"""The standard normal prior."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.numerics import LOG_2PI


def standard_normal_log_prob(z: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
    """Log-density of independent standard normals, `sum_j -1/2 (log 2 pi + z_j^2)`, in nats."""
    return jnp.sum(-0.5 * (LOG_2PI + jnp.square(z)), axis=-1)


class StandardNormal(nn.Module):
    """`p(z) = N(z; 0, I)`, as in Kingma & Welling 2014.

    Attributes:
        latents: Components of z.
    """

    latents: int

    is_standard_normal = True

    def log_prob(self, z: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """log p(z) in nats."""
        return standard_normal_log_prob(z)

    def sample(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]:
        """Latents drawn from the prior."""
        return jax.random.normal(key, (num_samples, self.latents))
