"""The standard normal prior."""

import jax
from jaxtyping import Array, Float

from vae_jax.flows import standard_normal_log_prob
from vae_jax.priors.prior import Prior
from vae_jax.shapes import RandomKey


class StandardNormal(Prior):
    """`p(z) = N(z; 0, I)`, as in Kingma & Welling 2014.

    Attributes:
        latents: Dimensions of z: D, or `(h, w, c)` for a map.
    """

    latents: int | tuple[int, int, int]

    is_standard_normal = True
    takes_maps = True

    def log_prob(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """log p(z) in nats."""
        return standard_normal_log_prob(z.reshape(*z.shape[: z.ndim - len(self.shape)], -1))

    def sample(self, key: RandomKey, num_samples: int) -> Float[Array, "n *z"]:
        """Latents drawn from the prior."""
        return jax.random.normal(key, (num_samples, *self.shape))
