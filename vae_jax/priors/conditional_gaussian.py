"""A Gaussian that depends on the context."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.flows import ConditionalGaussian, diagonal_gaussian_log_prob
from vae_jax.priors.prior import Prior
from vae_jax.settings import setting
from vae_jax.shapes import Nats, Points, RandomKey


class ConditionalGaussianPrior(Prior):
    """`p(z|c) = N(z; mean(c), exp(logvar(c)))`, for a conditional model; a new prior is the standard normal.

    Attributes:
        latents: Dimensions of z.
        hidden: Widths of the layers between context and mean.

    Source:
        Sohn et al., Learning structured output representation using deep conditional generative models, NIPS 2015.
    """

    takes_context = True

    latents: int
    hidden: tuple[int, ...] = setting((64,), "widths between context and mean", minimum=1)

    def setup(self) -> None:
        self.given = ConditionalGaussian(self.hidden, self.latents, nn.initializers.zeros)

    def log_prob(self, z: Points, context: Float[Array, "*#b c"]) -> Nats:
        """log p(z|c) in nats."""
        return diagonal_gaussian_log_prob(*self.given(context), z)

    def sample(self, key: RandomKey, num_samples: int, context: Float[Array, "n c"]) -> Float[Array, "n d"]:
        """Latents drawn from the prior, one for each context."""
        mean, logvar = self.given(context)
        return mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, (num_samples, self.latents), mean.dtype)
