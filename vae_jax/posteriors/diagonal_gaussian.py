"""Gaussian posterior with independent dimensions."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.flows import GaussianParameters, diagonal_gaussian_log_prob
from vae_jax.posteriors.posterior import Posterior
from vae_jax.shapes import Means, Noise, PerImage, PerSample, Samples


def kl_to_standard_normal(mean: Means, logvar: Means) -> Means:
    """KL divergence of each dimension of a diagonal Gaussian to a standard normal.

    `1/2 (mean_j^2 + exp(logvar_j) - 1 - logvar_j)`

    Args:
        mean: Means.
        logvar: Logs of the variances.

    Returns:
        Nats per dimension, never negative.

    Source:
        Kingma & Welling 2014, appendix B.
    """
    # expm1 is accurate where the variance is close to 1.
    return 0.5 * (jnp.square(mean) + jnp.expm1(logvar) - logvar)


class DiagonalGaussian(Posterior):
    """Gaussian with independent dimensions; mean and log-variance are linear in the features.

    For a map of latents the features are a map `[B, h, w, f]` of the same size, and the linear map is the same at each
    place.

    Attributes:
        latents: Dimensions of z: D, or `(h, w, c)` for a map.

    Source:
        Kingma & Welling 2014, eq. 9.
    """

    latents: int | tuple[int, int, int]

    analytic_kl = True
    log_prob_anywhere = True
    factorized = True
    diagonal_gaussian = True
    takes_maps = True

    @nn.compact
    def __call__(self, features: Float[Array, "b *f"]) -> GaussianParameters:
        """Mean and log-variance of each image's posterior."""
        mean = nn.Dense(self.shape[-1], name="mean")(features)
        logvar = nn.Dense(self.shape[-1], name="logvar")(features)
        return GaussianParameters(mean, logvar)

    def transform(self, parameters: GaussianParameters, noise: Noise) -> tuple[Samples, PerSample]:
        """The reparameterization trick, `z = mean + exp(logvar / 2) noise`.

        Returns:
            z, and log q(z|x) in nats.
        """
        noise = noise.reshape(*noise.shape[:2], *self.shape)
        z = parameters.mean + jnp.exp(0.5 * parameters.logvar) * noise
        return z, self.log_prob(parameters, z)

    def log_prob(self, parameters: GaussianParameters, z: Samples) -> PerSample:
        """log q(z|x) in nats at any z; see `diagonal_gaussian_log_prob`."""
        return diagonal_gaussian_log_prob(self._flat(parameters.mean), self._flat(parameters.logvar), self._flat(z))

    def mean(self, parameters: GaussianParameters) -> Means:
        """Posterior means."""
        return parameters.mean

    def kl_to_standard_normal(self, parameters: GaussianParameters) -> PerImage:
        """KL divergence to a standard normal in nats per image; see `kl_to_standard_normal`."""
        return jnp.sum(self.kl_groups(parameters), axis=-1)

    def kl_groups(self, parameters: GaussianParameters) -> Float[Array, "b d"]:
        """The same for each dimension."""
        return kl_to_standard_normal(*map(self._flat, parameters))

    def log_prob_per_dimension(
        self, parameters: GaussianParameters, z: Float[Array, "k #b *z"]
    ) -> Float[Array, "k b d"]:
        """log q(z_d|x) in nats at any z."""
        mean, logvar, z = (self._flat(values)[..., None] for values in (*parameters, z))
        return diagonal_gaussian_log_prob(mean, logvar, z)

    def _flat(self, values: Float[Array, "..."]) -> Float[Array, "..."]:
        """The dimensions of z in one axis."""
        return values.reshape(*values.shape[: values.ndim - len(self.shape)], -1)
