"""Gaussian likelihoods of continuous pixels, with a fixed or a learned variance."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.likelihoods.soft_bound import softly_above
from vae_jax.numerics import LOG_2PI, flat_event, flat_mask, sum_event
from vae_jax.settings import setting
from vae_jax.shapes import Data, Mask, Nats, Outputs, Pixels, RandomKey, Scalar


def gaussian_log_prob(mean: Pixels, logvar: Data | Scalar, x: Data, observed: Mask = None) -> Nats:
    """Log-density of images under independent Gaussian pixels.

    `sum_i -1/2 [log 2 pi + logvar_i + (x_i - mean_i)^2 exp(-logvar_i)]`

    Args:
        mean: Mean of each pixel, in the unit of `x`.
        logvar: Log of the variance (not of the standard deviation) of each pixel.
        x: Pixels.
        observed: Which of them count; None for all.

    Returns:
        Nats per image.

    Source:
        Kingma & Welling 2014, appendix C.2.
    """
    mean, x = flat_event(mean), flat_event(x)
    logvar = flat_event(logvar) if jnp.ndim(logvar) else logvar
    return sum_event(-0.5 * (LOG_2PI + logvar + jnp.square(x - mean) * jnp.exp(-logvar)), flat_mask(observed))


class Gaussian(nn.Module):
    """Gaussian pixels with one variance for all; the decoder outputs the means.

    With a fixed standard deviation sigma, maximizing the ELBO minimizes `mean_i (x_i - mean_i)^2 + w KL` with
    `w = 2 sigma^2 / D`, for images of D pixel values: a mean squared error plus a weighted KL.

    Attributes:
        stddev: Standard deviation of every pixel, in the unit of the pixels; the initial value if learned.
        learned: Whether the variance is a parameter, as in the sigma-VAE (Rybkin et al., arXiv 2006.13202).
    """

    stddev: float = setting(1.0, "standard deviation, for values in [0, 1]; where it starts, if learned", minimum=1e-6)
    learned: bool = setting(False, "whether the standard deviation is learned")

    base_measure = "continuous"
    support = frozenset({"levels", "continuous", "real"})
    has_width = True
    mean_in_page = "identity"

    def setup(self) -> None:
        logvar = jnp.asarray(2.0 * math.log(self.stddev))
        self.logvar = self.param("logvar", lambda key: logvar) if self.learned else logvar

    def outputs_per_pixel(self, channels: int) -> int:
        """One output for each channel."""
        return channels

    def log_prob(self, outputs: Pixels, x: Data, observed: Mask = None, log_factor: Scalar | None = None) -> Nats:
        """Nats per image, with the standard deviation times `exp(log_factor)`; see `gaussian_log_prob`."""
        logvar = self.logvar if log_factor is None else self.logvar + 2.0 * log_factor
        return gaussian_log_prob(outputs, logvar, x, observed)

    def mean(self, outputs: Pixels) -> Pixels:
        """Mean of each pixel."""
        return outputs

    def noise_stddev(self) -> Scalar:
        """Standard deviation of every pixel, in the unit of the pixels."""
        return jnp.exp(0.5 * self.logvar)

    def sample(self, outputs: Pixels, key: RandomKey) -> Pixels:
        """Images with noise."""
        noise = jax.random.normal(key, outputs.shape, outputs.dtype)
        return outputs + self.noise_stddev() * noise


class GaussianPerPixel(nn.Module):
    """Gaussian pixels, each with its variance; the decoder outputs all means, then all log-variances.

    The density of a pixel that is equal in all images grows without bound as its variance shrinks. So the standard
    deviation has a soft lower bound: `logvar = m + softplus(output - m)` with `m = 2 log min_stddev` (-13.8 by default)
    equals the output of the decoder wherever that is well above m.

    Attributes:
        min_stddev: The bound, in the unit of the pixels. The default is about the error of rounding to 256 levels,
            `1 / (255 sqrt 12)`.
    """

    min_stddev: float = setting(1e-3, "what standard deviations stay above, softly", minimum=1e-6)

    base_measure = "continuous"
    support = frozenset({"levels", "continuous", "real"})
    has_width = True
    mean_in_page = "identity"

    def outputs_per_pixel(self, channels: int) -> int:
        """Mean and log-variance of each channel."""
        return 2 * channels

    def parameters(self, outputs: Outputs) -> tuple[Pixels, Pixels]:
        """Means and log-variances."""
        mean, logvar = jnp.split(outputs, 2, axis=-1)
        return mean, softly_above(logvar, 2.0 * math.log(self.min_stddev))

    def log_prob(self, outputs: Outputs, x: Data, observed: Mask = None, log_factor: Scalar | None = None) -> Nats:
        """Nats per image, with the standard deviation times `exp(log_factor)`; see `gaussian_log_prob`."""
        mean, logvar = self.parameters(outputs)
        return gaussian_log_prob(mean, logvar if log_factor is None else logvar + 2.0 * log_factor, x, observed)

    def mean(self, outputs: Outputs) -> Pixels:
        """Mean of each pixel."""
        return self.parameters(outputs)[0]

    def sample(self, outputs: Outputs, key: RandomKey) -> Pixels:
        """Images with noise."""
        mean, logvar = self.parameters(outputs)
        return mean + jnp.exp(0.5 * logvar) * jax.random.normal(key, mean.shape, mean.dtype)
