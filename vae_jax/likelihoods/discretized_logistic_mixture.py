"""Mixture of discretized logistic distributions, as in PixelCNN++."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.likelihoods.discretized_logistic import (
    MIN_LOG_SCALE,
    logistic_level_log_prob,
    logistic_level_mean,
    round_to_levels,
)
from vae_jax.likelihoods.soft_bound import softly_above
from vae_jax.numerics import flat_event, flat_mask, sum_event
from vae_jax.settings import setting
from vae_jax.shapes import Data, Mask, Nats, Outputs, Pixels, RandomKey, Scalar


class LogisticMixture(NamedTuple):
    """The mixture of each pixel, with M components and C channels, for pixels scaled to [-1, 1].

    Attributes:
        log_weights: Logs of the normalized mixture weights, shared by the channels.
        means: Of each component and channel, without the dependence on earlier channels.
        log_scales: Logs of the scale of each component and channel.
        coefficients: How the mean of channel c depends on the value of each earlier channel c', in the order
            (c, c') = (1, 0), (2, 0), (2, 1), ...; P = C (C - 1) / 2 of them, in [-1, 1].
    """

    log_weights: Float[Array, "*batch m"]
    means: Float[Array, "*batch m c"]
    log_scales: Float[Array, "*batch m c"]
    coefficients: Float[Array, "*batch m p"]

    def dependence(self, channel: int, y: Float[Array, "*#batch #m earlier"]) -> Float[Array, "*batch m"]:
        """What the values of earlier channels, in [-1, 1], add to the mean of this channel."""
        start = channel * (channel - 1) // 2
        return jnp.sum(self.coefficients[..., start : start + channel] * y, axis=-1)


def numbers_per_component(channels: int) -> int:
    """A weight, a mean and a log-scale per channel, and the coefficients: `(C + 1)(C + 2) / 2`, 10 for colour."""
    return (channels + 1) * (channels + 2) // 2


def split_outputs(outputs: Float[Array, "*batch o"], components: int) -> LogisticMixture:
    """The mixture from decoder outputs: weights, means, log-scales and coefficients, in this order.

    Log-scales stay above -7 as in PixelCNN++, with a soft bound (`softly_above`); coefficients go through tanh.

    Args:
        outputs: `M (C + 1)(C + 2) / 2` numbers for each pixel.
        components: M.
    """
    per_component = outputs.shape[-1] // components
    channels = (math.isqrt(8 * per_component + 1) - 3) // 2
    logits = outputs[..., :components]
    rest = outputs[..., components:].reshape(*outputs.shape[:-1], components, per_component - 1)
    return LogisticMixture(
        log_weights=jax.nn.log_softmax(logits, axis=-1),
        means=rest[..., :channels],
        log_scales=softly_above(rest[..., channels : 2 * channels], MIN_LOG_SCALE),
        coefficients=jnp.tanh(rest[..., 2 * channels :]),
    )


def logistic_mixture_log_prob(mixture: LogisticMixture, x: Data, levels: int, observed: Mask = None) -> Nats:
    """Log-probability of images under a mixture of discretized logistic distributions at each pixel.

    `sum_pixels log sum_m w_m prod_c P(x_c; mean_mc + sum_{c' < c} coefficient_mcc' y_c', scale_mc)` with
    `y = 2x - 1` and P of `logistic_level_log_prob`.

    Args:
        mixture: With leading axes `[..., H, W]`.
        x: Pixels k/(L-1).
        levels: L.
        observed: Which pixels count, if all of their channels are observed; None for all.

    Returns:
        Nats per image.

    Source:
        Salimans et al. 2017 (PixelCNN++, arXiv 1701.05517), eq. 2 and 3; any number of channels.
    """
    y = (2.0 * x - 1.0)[..., None, :]
    channels = range(x.shape[-1])
    shifts = jnp.stack([mixture.dependence(channel, y[..., :channel]) for channel in channels], axis=-1)
    of_values = logistic_level_log_prob(mixture.means + shifts, mixture.log_scales, x[..., None, :], levels)
    of_pixels = jax.nn.logsumexp(mixture.log_weights + jnp.sum(of_values, axis=-1), axis=-1)
    whole = None if observed is None else jnp.all(observed, axis=-1, keepdims=True)
    return sum_event(flat_event(of_pixels[..., None]), flat_mask(whole))


class DiscretizedLogisticMixture(nn.Module):
    """Independent pixels, each with a mixture of logistic distributions rounded to levels.

    The channels of a pixel depend on each other: they share a component, and are linear within it.

    Attributes:
        levels: Number of values of a pixel: 1 + the largest value in the source.
        components: Logistic distributions per pixel; PixelCNN++ has 10.
    """

    levels: int
    components: int = setting(10, "logistic distributions of a pixel", minimum=1)

    support = frozenset({"levels"})
    has_width = True

    @property
    def base_measure(self) -> str:
        """Probabilities of levels."""
        return f"{self.levels} levels"

    def outputs_per_pixel(self, channels: int) -> int:
        """See `numbers_per_component`."""
        return self.components * numbers_per_component(channels)

    def log_prob(self, outputs: Outputs, x: Data, observed: Mask = None, log_factor: Scalar | None = None) -> Nats:
        """Nats per image, with all scales times `exp(log_factor)`; see `logistic_mixture_log_prob`."""
        mixture = split_outputs(outputs, self.components)
        if log_factor is not None:
            mixture = mixture._replace(log_scales=mixture.log_scales + log_factor)
        return logistic_mixture_log_prob(mixture, x, self.levels, observed)

    def mean(self, outputs: Outputs) -> Pixels:
        """Mean of each pixel.

        Exact for the first channel, so for grey images. For later channels, earlier ones are replaced by their means
        within the component. That is exact except in the edge bins, as the mean of a clipped value isn't the clipped
        mean.
        """
        mixture = split_outputs(outputs, self.components)
        means = jnp.zeros_like(mixture.means[..., :0])
        for channel in range(mixture.means.shape[-1]):
            center = mixture.means[..., channel] + mixture.dependence(channel, 2.0 * means - 1.0)
            mean = logistic_level_mean(center, mixture.log_scales[..., channel], self.levels)
            means = jnp.concatenate([means, mean[..., None]], axis=-1)
        return jnp.sum(jnp.exp(mixture.log_weights)[..., None] * means, axis=-2)

    def sample(self, outputs: Outputs, key: RandomKey) -> Pixels:
        """Images with pixels k/(L-1): first a component for each pixel, then channel by channel."""
        mixture = split_outputs(outputs, self.components)
        component_key, noise_key = jax.random.split(key)
        component = jax.random.categorical(component_key, mixture.log_weights)[..., None]
        noise = jax.random.logistic(noise_key, mixture.means[..., 0, :].shape, outputs.dtype)
        chosen = LogisticMixture(
            jnp.take_along_axis(mixture.log_weights, component, axis=-1),
            *(jnp.take_along_axis(part, component[..., None], axis=-2) for part in mixture[1:]),
        )
        x = jnp.zeros_like(noise[..., :0])
        for channel in range(noise.shape[-1]):
            center = chosen.means[..., 0, channel] + chosen.dependence(channel, 2.0 * x[..., None, :] - 1.0)[..., 0]
            y = center + jnp.exp(chosen.log_scales[..., 0, channel]) * noise[..., channel]
            x = jnp.concatenate([x, round_to_levels(y, self.levels)[..., None]], axis=-1)
        return x
