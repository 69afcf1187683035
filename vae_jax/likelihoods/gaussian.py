"""Gaussian likelihoods of continuous pixels, with a given or a learned variance."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.numerics import LOG_2PI, sum_event


def gaussian_log_prob(
    mean: Float[Array, "*batch h w c"],
    logvar: Float[Array, "*#batch #h #w #c"] | Float[Array, ""],
    x: Float[Array, "*#batch h w c"],
) -> Float[Array, "*batch"]:
    """Log-density of images under independent Gaussian pixels.

    `sum_i -1/2 [log 2 pi + logvar_i + (x_i - mean_i)^2 exp(-logvar_i)]`

    Args:
        mean: Mean of each pixel, in the unit of `x`.
        logvar: Log of the variance (not of the standard deviation) of each pixel.
        x: Pixels.

    Returns:
        Nats per image.

    Source:
        Kingma & Welling 2014, appendix C.2.
    """
    return sum_event(-0.5 * (LOG_2PI + logvar + jnp.square(x - mean) * jnp.exp(-logvar)))


class Gaussian(nn.Module):
    """Gaussian pixels that share one variance; the decoder puts out their means.

    Attributes:
        stddev: Standard deviation of every pixel, in the unit of the pixels; where it starts if learned.
        learned: Whether the variance is a parameter, as in the sigma-VAE (Rybkin et al., arXiv 2006.13202).
    """

    stddev: float = 1.0
    learned: bool = False

    measure = "continuous on [0, 1]"

    def setup(self) -> None:
        logvar = jnp.asarray(2.0 * math.log(self.stddev))
        self.logvar = self.param("logvar", lambda key: logvar) if self.learned else logvar

    def outputs_per_pixel(self, channels: int) -> int:
        """One number for each channel."""
        return channels

    def log_prob(
        self, outputs: Float[Array, "*batch h w c"], x: Float[Array, "*#batch h w c"]
    ) -> Float[Array, "*batch"]:
        """Nats per image; see `gaussian_log_prob`."""
        return gaussian_log_prob(outputs, self.logvar, x)

    def mean(self, outputs: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h w c"]:
        """Mean of each pixel."""
        return outputs

    def sample(self, outputs: Float[Array, "*batch h w c"], key: Key[Array, ""]) -> Float[Array, "*batch h w c"]:
        """Images with the noise in them."""
        noise = jax.random.normal(key, outputs.shape, outputs.dtype)
        return outputs + jnp.exp(0.5 * self.logvar) * noise
