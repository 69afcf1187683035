"""Gaussian posterior with independent components."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.numerics import LOG_2PI


class GaussianParameters(NamedTuple):
    """Mean and log-variance of a diagonal Gaussian for each image."""

    mean: Float[Array, "b d"]
    logvar: Float[Array, "b d"]


def diagonal_gaussian_log_prob(
    mean: Float[Array, "*#batch d"], logvar: Float[Array, "*#batch d"], z: Float[Array, "*batch d"]
) -> Float[Array, "*batch"]:
    """Log-density of a Gaussian with independent components.

    `sum_j -1/2 [log 2 pi + logvar_j + (z_j - mean_j)^2 exp(-logvar_j)]`

    Args:
        mean: Means.
        logvar: Logs of the variances.
        z: Where to evaluate.

    Returns:
        Nats per latent vector.
    """
    return jnp.sum(-0.5 * (LOG_2PI + logvar + jnp.square(z - mean) * jnp.exp(-logvar)), axis=-1)


def kl_to_standard_normal(mean: Float[Array, "b d"], logvar: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """KL divergence of each component of a diagonal Gaussian to a standard normal.

    `1/2 (mean_j^2 + exp(logvar_j) - 1 - logvar_j)`

    Args:
        mean: Means.
        logvar: Logs of the variances.

    Returns:
        Nats per component, never negative.

    Source:
        Kingma & Welling 2014, appendix B.
    """
    # expm1 keeps the difference exact where the variance is close to 1.
    return 0.5 * (jnp.square(mean) + jnp.expm1(logvar) - logvar)


class DiagonalGaussian(nn.Module):
    """Gaussian with independent components, whose mean and log-variance are linear in the features.

    Attributes:
        latents: Components of z.

    Source:
        Kingma & Welling 2014, eq. 9.
    """

    latents: int

    analytic_kl = True
    has_density = True
    log_prob_anywhere = True
    reparameterized = True

    @property
    def noise_size(self) -> int:
        """One number per component."""
        return self.latents

    @nn.compact
    def __call__(self, features: Float[Array, "b f"]) -> GaussianParameters:
        """Mean and log-variance of each image's posterior."""
        mean = nn.Dense(self.latents, name="mean")(features)
        logvar = nn.Dense(self.latents, name="logvar")(features)
        return GaussianParameters(mean, logvar)

    def transform(
        self, parameters: GaussianParameters, noise: Float[Array, "k b d"]
    ) -> tuple[Float[Array, "k b d"], Float[Array, "k b"]]:
        """The reparameterization trick, `z = mean + exp(logvar / 2) noise`.

        Returns:
            z, and log q(z|x) in nats.
        """
        z = parameters.mean + jnp.exp(0.5 * parameters.logvar) * noise
        return z, self.log_prob(parameters, z)

    def log_prob(self, parameters: GaussianParameters, z: Float[Array, "k b d"]) -> Float[Array, "k b"]:
        """log q(z|x) in nats, anywhere; see `diagonal_gaussian_log_prob`."""
        return diagonal_gaussian_log_prob(parameters.mean, parameters.logvar, z)

    def mean(self, parameters: GaussianParameters) -> Float[Array, "b d"]:
        """Posterior means."""
        return parameters.mean

    def kl_to_standard_normal(self, parameters: GaussianParameters) -> Float[Array, "b"]:
        """KL divergence to a standard normal in nats per image; see `kl_to_standard_normal`."""
        return jnp.sum(kl_to_standard_normal(parameters.mean, parameters.logvar), axis=-1)
