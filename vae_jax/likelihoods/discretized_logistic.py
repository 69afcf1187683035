"""Discretized logistic likelihood of pixels with a fixed number of levels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.likelihoods.log_sinhc import log_sinhc_series
from vae_jax.likelihoods.soft_bound import softly_above
from vae_jax.numerics import flat_event, flat_mask, sum_event
from vae_jax.shapes import Data, Mask, Nats, Outputs, Pixels, RandomKey, Scalar

MIN_LOG_SCALE = -7.0


def log_one_minus_exp(distance: Float[Array, "*shape"], log_distance: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`log(1 - exp(-d))` for d >= 0 and log d; finite even where d underflows.

    For d < 1 as `log d - d/2 + log(sinh(d/2) / (d/2))`, otherwise as `log1p(-exp(-d))`.
    """
    is_small = distance < 1.0
    small = jnp.where(is_small, distance, 0.0)
    large = jnp.where(is_small, 1.0, distance)
    near_zero = jnp.where(is_small, log_distance, 0.0) - 0.5 * small + log_sinhc_series(0.5 * small)
    return jnp.where(is_small, near_zero, jnp.log1p(-jnp.exp(-large)))


def logistic_level_log_prob(
    mean: Float[Array, "*#shape"], log_scale: Float[Array, "*#shape"], x: Float[Array, "*#shape"], levels: int
) -> Float[Array, "*#shape"]:
    """Log-probability of each level under a logistic distribution rounded to levels.

    With levels k = 0 .. L-1 at `y_k = 2k/(L-1) - 1`, bin edges `y_k -+ 1/(L-1)` and
    `a, b = (upper, lower edge - mean) / scale`, `P(k) = s(a) - s(b)` where `s` is the logistic function; the first
    and last bin include the tails, so that the probabilities sum to 1. Computed as
    `log s(a) + log s(-b) + log(1 - exp(b - a))`, which avoids cancellation.

    Args:
        mean: Mean of the logistic distribution, for pixels scaled to [-1, 1].
        log_scale: Log of its scale, in the same unit.
        x: Pixels k/(L-1).
        levels: L.

    Returns:
        Nats per value, in the shape to which the arguments broadcast.

    Source:
        Salimans et al. 2017 (PixelCNN++, arXiv 1701.05517), eq. 2.
    """
    level = jnp.round(x * (levels - 1))
    inverse_scale = jnp.exp(-log_scale)
    # Computed from integers, so that neighbouring bins share exactly the same edge.
    upper = ((2.0 * level + 2.0 - levels) / (levels - 1) - mean) * inverse_scale
    lower = ((2.0 * level - levels) / (levels - 1) - mean) * inverse_scale
    width = 2.0 / (levels - 1)
    log_difference = log_one_minus_exp(width * inverse_scale, jnp.log(width) - log_scale)
    below_upper = jnp.where(level < levels - 1, jax.nn.log_sigmoid(upper), 0.0)
    above_lower = jnp.where(level > 0, jax.nn.log_sigmoid(-lower), 0.0)
    return below_upper + above_lower + jnp.where((level > 0) & (level < levels - 1), log_difference, 0.0)


def logistic_level_mean(
    mean: Float[Array, "*#shape"], log_scale: Float[Array, "*#shape"], levels: int
) -> Float[Array, "*#shape"]:
    """Exact mean of the rounded distribution, `sum_k k P(k) / (L-1) = sum_{k < L-1} P(level > k) / (L-1)`.

    Args:
        mean: As in `logistic_level_log_prob`.
        log_scale: Likewise.
        levels: L.

    Returns:
        Means in [0, 1].
    """
    inverse_scale = jnp.exp(-log_scale)

    def add_edge(level: Array, total: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        edge = (2.0 * level.astype(mean.dtype) + 2.0 - levels) / (levels - 1)
        return total + jax.nn.sigmoid((mean - edge) * inverse_scale)

    # A loop over the edges, as all of them at once would take 255 times the memory.
    total = jax.lax.fori_loop(0, levels - 1, add_edge, jnp.zeros_like(mean * inverse_scale))
    return total / (levels - 1)


def round_to_levels(y: Float[Array, "*shape"], levels: int) -> Float[Array, "*shape"]:
    """The nearest level k/(L-1) of values scaled to [-1, 1]."""
    return jnp.clip(jnp.round(0.5 * (y + 1.0) * (levels - 1)), 0.0, levels - 1.0) / (levels - 1)


def discretized_logistic_log_prob(mean: Pixels, log_scale: Pixels, x: Data, levels: int, observed: Mask = None) -> Nats:
    """Log-probability of images under independent discretized logistic pixels.

    Args:
        mean: For pixels scaled to [-1, 1].
        log_scale: Log of the scale, in the same unit.
        x: Pixels k/(L-1).
        levels: L.
        observed: Which pixels count; None for all.

    Returns:
        Nats per image; see `logistic_level_log_prob` for the formula and its source.
    """
    of_values = logistic_level_log_prob(flat_event(mean), flat_event(log_scale), flat_event(x), levels)
    return sum_event(of_values, flat_mask(observed))


class DiscretizedLogistic(nn.Module):
    """Independent pixels, each with a logistic distribution rounded to levels.

    The decoder outputs the means of all channels, then their log-scales, for pixels scaled to [-1, 1]. Log-scales stay
    above -7 as in PixelCNN++, with a soft bound (`softly_above`).

    Attributes:
        levels: Number of values of a pixel: 1 + the largest value in the source.
    """

    levels: int

    support = frozenset({"levels"})
    has_width = True

    @property
    def base_measure(self) -> str:
        """Probabilities of levels."""
        return f"{self.levels} levels"

    def outputs_per_pixel(self, channels: int) -> int:
        """Mean and log-scale of each channel."""
        return 2 * channels

    def parameters(self, outputs: Outputs) -> tuple[Pixels, Pixels]:
        """Means and log-scales."""
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        return mean, softly_above(log_scale, MIN_LOG_SCALE)

    def log_prob(self, outputs: Outputs, x: Data, observed: Mask = None, log_factor: Scalar | None = None) -> Nats:
        """Nats per image, with the scale times `exp(log_factor)`; see `logistic_level_log_prob`."""
        mean, log_scale = self.parameters(outputs)
        log_scale = log_scale if log_factor is None else log_scale + log_factor
        return discretized_logistic_log_prob(mean, log_scale, x, self.levels, observed)

    def mean(self, outputs: Outputs) -> Pixels:
        """Exact mean of each pixel; see `logistic_level_mean`."""
        return logistic_level_mean(*self.parameters(outputs), self.levels)

    def sample(self, outputs: Outputs, key: RandomKey) -> Pixels:
        """Images with pixels k/(L-1)."""
        mean, log_scale = self.parameters(outputs)
        noise = jax.random.logistic(key, mean.shape, mean.dtype)
        return round_to_levels(mean + jnp.exp(log_scale) * noise, self.levels)
