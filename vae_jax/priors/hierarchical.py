"""Prior with two stochastic layers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.flows import ConditionalGaussian, diagonal_gaussian_log_prob, standard_normal_log_prob
from vae_jax.priors.prior import Prior
from vae_jax.shapes import Nats, Points, RandomKey


class HierarchicalPrior(Prior):
    """`p(z) = p(z2) p(z1|z2)`: z2 is standard normal, z1 Gaussian given z2; z is z1 followed by z2.

    Attributes:
        lower: Dimensions of z1, which alone goes into the decoder.
        upper: Dimensions of z2.
        hidden: Widths of the tanh layers from z2 to z1.

    Source:
        Burda et al., arXiv 1509.00519, eq. 1 and section 5: lower 100, upper 50, hidden (100, 100).
    """

    lower: int
    upper: int
    hidden: tuple[int, ...]

    @property
    def latents(self) -> int:
        """Dimensions of z, of both layers together."""
        return self.lower + self.upper

    @property
    def num_decoded(self) -> int:
        """Only z1 goes into the decoder."""
        return self.lower

    def setup(self) -> None:
        self.conditional = ConditionalGaussian(self.hidden, self.lower)

    def log_prob(self, z: Points) -> Nats:
        """`log p(z2) + log p(z1|z2)` in nats."""
        lower, upper = z[..., : self.lower], z[..., self.lower :]
        return standard_normal_log_prob(upper) + diagonal_gaussian_log_prob(*self.conditional(upper), lower)

    def sample(self, key: RandomKey, num_samples: int) -> Float[Array, "n d"]:
        """Latents drawn from the prior, z2 first."""
        noise = jax.random.normal(key, (num_samples, self.latents))
        upper = noise[:, self.lower :]
        mean, logvar = self.conditional(upper)
        return jnp.concatenate([mean + jnp.exp(0.5 * logvar) * noise[:, : self.lower], upper], axis=-1)
