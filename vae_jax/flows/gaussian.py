"""Gaussians: densities, parameters, and conditional Gaussians for hierarchies."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.numerics import LOG_2PI
from vae_jax.shapes import Nats, Points


class GaussianParameters(NamedTuple):
    """Means and log-variances of a Gaussian with independent dimensions."""

    mean: Points
    logvar: Points


def standard_normal_log_prob(z: Points) -> Nats:
    """Log-density of independent standard normals, `sum_j -1/2 (log 2 pi + z_j^2)`, in nats."""
    return jnp.sum(-0.5 * (LOG_2PI + jnp.square(z)), axis=-1)


def diagonal_gaussian_log_prob(
    mean: Float[Array, "*#batch d"], logvar: Float[Array, "*#batch d"], z: Float[Array, "*#batch d"]
) -> Nats:
    """Log-density of a Gaussian with independent dimensions.

    `sum_j -1/2 [log 2 pi + logvar_j + (z_j - mean_j)^2 exp(-logvar_j)]`

    Args:
        mean: Means.
        logvar: Logs of the variances.
        z: Where to evaluate.

    Returns:
        Nats per latent vector.
    """
    return jnp.sum(-0.5 * (LOG_2PI + logvar + jnp.square(z - mean) * jnp.exp(-logvar)), axis=-1)


class ConditionalGaussian(nn.Module):
    """`N(mean(y), exp(logvar(y)))` with mean and log-variance from fully connected tanh layers.

    Attributes:
        hidden: Width of each layer; `()` makes mean and log-variance linear in y.
        size: Dimensions of the Gaussian.
        last: What the weights of the last layer start as.

    Source:
        Burda et al., arXiv 1509.00519, section 5: the layers between stochastic layers.
    """

    hidden: tuple[int, ...]
    size: int
    last: nn.initializers.Initializer = nn.linear.default_kernel_init

    @nn.compact
    def __call__(self, y: Float[Array, "*batch f"]) -> GaussianParameters:
        """Means and log-variances for each y."""
        for width in self.hidden:
            y = nn.tanh(nn.Dense(width)(y))
        mean, logvar = (nn.Dense(self.size, kernel_init=self.last, name=name)(y) for name in ("mean", "logvar"))
        return GaussianParameters(mean, logvar)
