"""RealNVP prior."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.flows import AffineCoupling, standard_normal_log_prob
from vae_jax.priors.prior import Prior
from vae_jax.settings import setting
from vae_jax.shapes import Nats, Points, RandomKey


class RealNVP(Prior):
    """A standard normal transformed by affine couplings, which keep even and odd dimensions alternately.

    A new prior is the standard normal. With a single dimension it stays a Gaussian.

    Attributes:
        latents: Dimensions of z.
        flows: Number of couplings; at least 2, so that every dimension is transformed.
        hidden: Widths of the layers in each coupling.

    Source:
        Dinh et al., arXiv 1605.08803; as a prior: Chen et al., arXiv 1611.02731.
    """

    latents: int
    flows: int = setting(6, "couplings", minimum=2, below=129)
    hidden: tuple[int, ...] = setting((128, 128), "widths in each coupling", minimum=1)

    def setup(self) -> None:
        self.couplings = [AffineCoupling(self.hidden, keep_even=index % 2 == 0) for index in range(self.flows)]

    def log_prob(self, z: Points) -> Nats:
        """`log p(z) = log N(u; 0, I) + log |det du/dz|` in nats, where the flow maps u to z."""
        u, log_det = self.inverse(z)
        return standard_normal_log_prob(u) + log_det

    def sample(self, key: RandomKey, num_samples: int) -> Float[Array, "n d"]:
        """Latents drawn from the prior."""
        return self.forward(jax.random.normal(key, (num_samples, self.latents)))

    def forward(self, u: Points) -> Points:
        """From standard normal u to z."""
        for coupling in self.couplings:
            u = coupling.forward(u)
        return u

    def inverse(self, z: Points) -> tuple[Points, Nats]:
        """From z to u, with `log |det du/dz|` in nats."""
        log_det = jnp.zeros(z.shape[:-1], z.dtype)
        for coupling in reversed(self.couplings):
            z, step = coupling.inverse(z)
            log_det = log_det + step
        return z, log_det
