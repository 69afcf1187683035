"""Gaussian posterior with a full covariance."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vae_jax.flows import standard_normal_log_prob
from vae_jax.posteriors.posterior import Posterior
from vae_jax.shapes import Means, PerImage, PerSample, Samples


class FullGaussianParameters(NamedTuple):
    """A Gaussian for each image: its mean, and the Cholesky factor L of its covariance `L L^T`, in two parts.

    Attributes:
        mean: Means.
        log_diagonal: Logs of the diagonal of L.
        below: L below its diagonal; other entries are ignored.
    """

    mean: Means
    log_diagonal: Means
    below: Float[Array, "b d d"]

    @property
    def factor(self) -> Float[Array, "b d d"]:
        """L."""
        diagonal = jnp.exp(self.log_diagonal)
        return jnp.tril(self.below, -1) + diagonal[:, :, None] * jnp.eye(diagonal.shape[-1], dtype=diagonal.dtype)


class FullGaussian(Posterior):
    """`N(mean, L L^T)`, with mean and Cholesky factor L linear in the features (log L on the diagonal).

    The weights of L below the diagonal start at 0, so a new posterior is diagonal.

    Attributes:
        latents: Dimensions of z.

    Source:
        Kingma & Welling, An Introduction to Variational Autoencoders, arXiv 1906.02691, section 2.5.1.
    """

    latents: int

    analytic_kl = True
    log_prob_anywhere = True

    @nn.compact
    def __call__(self, features: Float[Array, "b f"]) -> FullGaussianParameters:
        """Mean and Cholesky factor of each image's posterior."""
        mean = nn.Dense(self.latents, name="mean")(features)
        log_diagonal = nn.Dense(self.latents, name="log_diagonal")(features)
        rows, columns = np.tril_indices(self.latents, -1)
        below = jnp.zeros((*mean.shape, self.latents), mean.dtype)
        if len(rows):  # Orbax can't save empty arrays, so a single dimension has no such weights.
            entries = nn.Dense(len(rows), kernel_init=nn.initializers.zeros, name="below")(features)
            below = below.at[:, rows, columns].set(entries)
        return FullGaussianParameters(mean, log_diagonal, below)

    def transform(self, parameters: FullGaussianParameters, noise: Samples) -> tuple[Samples, PerSample]:
        """The reparameterization trick, `z = mean + L noise`.

        Returns:
            z, and `log q(z|x) = log N(noise; 0, I) - sum_j log L_jj` in nats.
        """
        z = parameters.mean + jnp.einsum("bij,kbj->kbi", parameters.factor, noise)
        return z, standard_normal_log_prob(noise) - jnp.sum(parameters.log_diagonal, axis=-1)

    def log_prob(self, parameters: FullGaussianParameters, z: Samples) -> PerSample:
        """log q(z|x) in nats at any z: from the noise `L^-1 (z - mean)` that gives z."""
        centered = jnp.moveaxis(z - parameters.mean, 0, -1)
        noise = jax.scipy.linalg.solve_triangular(parameters.factor, centered, lower=True)
        return standard_normal_log_prob(jnp.moveaxis(noise, -1, 0)) - jnp.sum(parameters.log_diagonal, axis=-1)

    def mean(self, parameters: FullGaussianParameters) -> Means:
        """Posterior means."""
        return parameters.mean

    def kl_to_standard_normal(self, parameters: FullGaussianParameters) -> PerImage:
        """KL divergence to a standard normal in nats per image.

        `1/2 [|mean|^2 + |L|_F^2 - D - 2 sum_j log L_jj]`
        """
        # expm1 is accurate where the variances are close to 1.
        twice = 2.0 * parameters.log_diagonal
        diagonal = jnp.sum(jnp.square(parameters.mean) + jnp.expm1(twice) - twice, axis=-1)
        return 0.5 * (diagonal + jnp.sum(jnp.square(jnp.tril(parameters.below, -1)), axis=(-2, -1)))
