"""Posterior with two stochastic layers."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.flows import ConditionalGaussian, GaussianParameters, diagonal_gaussian_log_prob
from vae_jax.posteriors.posterior import Posterior
from vae_jax.shapes import Means, PerSample, Samples


class HierarchicalPosterior(Posterior):
    """`q(z|x) = q(z1|x) q(z2|z1)`, both Gaussians with independent dimensions; z is z1 followed by z2.

    Attributes:
        lower: Dimensions of z1, whose mean and log-variance are linear in the features.
        upper: Dimensions of z2.
        hidden: Widths of the tanh layers from z1 to z2.

    Source:
        Burda et al., arXiv 1509.00519, eq. 2 and section 5: lower 100, upper 50, hidden (100, 100).
    """

    lower: int
    upper: int
    hidden: tuple[int, ...]

    log_prob_anywhere = True

    @property
    def latents(self) -> int:
        """Dimensions of z, of both layers together."""
        return self.lower + self.upper

    def setup(self) -> None:
        self.first = ConditionalGaussian((), self.lower)
        self.second = ConditionalGaussian(self.hidden, self.upper)

    def __call__(self, features: Float[Array, "b f"]) -> GaussianParameters:
        """Mean and log-variance of q(z1|x); those of q(z2|z1) depend on z1."""
        return self.first(features)

    def transform(self, parameters: GaussianParameters, noise: Samples) -> tuple[Samples, PerSample]:
        """The reparameterization trick, one layer after the other; z, and log q(z|x) in nats."""
        lower = parameters.mean + jnp.exp(0.5 * parameters.logvar) * noise[..., : self.lower]
        second = self.second(lower)
        upper = second.mean + jnp.exp(0.5 * second.logvar) * noise[..., self.lower :]
        z = jnp.concatenate([lower, upper], axis=-1)
        return z, self.log_prob(parameters, z)

    def log_prob(self, parameters: GaussianParameters, z: Samples) -> PerSample:
        """`log q(z1|x) + log q(z2|z1)` in nats at any z."""
        lower, upper = z[..., : self.lower], z[..., self.lower :]
        first = diagonal_gaussian_log_prob(parameters.mean, parameters.logvar, lower)
        return first + diagonal_gaussian_log_prob(*self.second(lower), upper)

    def mean(self, parameters: GaussianParameters) -> Means:
        """Mean of q(z1|x), and mean of q(z2|z1) at that z1."""
        return jnp.concatenate([parameters.mean, self.second(parameters.mean).mean], axis=-1)
