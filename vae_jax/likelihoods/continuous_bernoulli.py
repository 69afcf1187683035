"""Continuous Bernoulli likelihood of pixels in [0, 1]."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.likelihoods.log_sinhc import log_sinhc_series
from vae_jax.numerics import flat_event, flat_mask, sum_event
from vae_jax.shapes import Data, Mask, Nats, Pixels, RandomKey


def continuous_bernoulli_log_density(
    logits: Float[Array, "*#shape"], x: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """`x l - log((exp(l) - 1) / l)` of each pixel, with value and gradient accurate for every l.

    For |l| < 1 as `(x - 1/2) l - log(sinh(l/2) / (l/2))` with a series for the last term. Otherwise, with e the edge
    (0 or 1) where the density is highest, as `-|l| |x - e| + log |l| - log(1 - exp(-|l|))`, without cancellation.

    Args:
        logits: `l = log r / (1 - r)`.
        x: Pixels in [0, 1].

    Returns:
        Nats per pixel, in the shape to which the arguments broadcast.
    """
    is_small = jnp.abs(logits) < 1.0
    # Each branch gets a harmless value where the other is used, so that no gradient is NaN.
    small, large = jnp.where(is_small, logits, 0.0), jnp.where(is_small, 1.0, logits)
    near_uniform = (x - 0.5) * small - log_sinhc_series(0.5 * small)
    magnitude = jnp.abs(large)
    distance = jnp.where(large > 0, 1.0 - x, x)
    peaked = jnp.log(magnitude) - magnitude * distance - jnp.log1p(-jnp.exp(-magnitude))
    return jnp.where(is_small, near_uniform, peaked)


def continuous_bernoulli_log_prob(logits: Pixels, x: Data, observed: Mask = None) -> Nats:
    """Log-density of images under independent continuous Bernoulli pixels.

    `sum_i x_i log r_i + (1 - x_i) log(1 - r_i) + log C(r_i)` with `r = 1 / (1 + exp(-l))` and
    `C(r) = 2 artanh(1 - 2r) / (1 - 2r)`, which is `sum_i x_i l_i - log((exp(l_i) - 1) / l_i)`.

    Args:
        logits: `l = log r / (1 - r)` of each pixel.
        x: Pixels in [0, 1].
        observed: Which of them count; None for all.

    Returns:
        Nats per image.

    Source:
        Loaiza-Ganem & Cunningham 2019 (arXiv 1907.06845), eq. 6-8.
    """
    return sum_event(continuous_bernoulli_log_density(flat_event(logits), flat_event(x)), flat_mask(observed))


def continuous_bernoulli_mean(logits: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Mean of each pixel, `1 / (1 - exp(-l)) - 1/l`: minus the derivative of the log-density of 0."""
    at_zero = jnp.zeros_like(logits)
    _, rise = jax.jvp(lambda at: continuous_bernoulli_log_density(at, at_zero), (logits,), (jnp.ones_like(logits),))
    return -rise


def continuous_bernoulli_quantile(
    logits: Float[Array, "*shape"], probability: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Inverse of the cumulative distribution function, `log(1 + u (exp(l) - 1)) / l`.

    Args:
        logits: `l` of each pixel.
        probability: `u` in [0, 1].

    Returns:
        Pixels in [0, 1].
    """
    is_small = jnp.abs(logits) < 1e-3
    # 1 - x has the opposite logit, so use the negative logit, which can't overflow.
    negative = -jnp.abs(jnp.where(is_small, 1.0, logits))
    tail = jnp.where(logits > 0, 1.0 - probability, probability)
    mirrored = jnp.log1p(tail * jnp.expm1(negative)) / negative
    quantile = jnp.where(logits > 0, 1.0 - mirrored, mirrored)
    near_uniform = probability + 0.5 * logits * probability * (1.0 - probability)
    return jnp.clip(jnp.where(is_small, near_uniform, quantile), 0.0, 1.0)


class ContinuousBernoulli(nn.Module):
    """Independent continuous Bernoulli pixels; the decoder outputs logits."""

    base_measure = "continuous on [0, 1]"
    mean_in_page = "continuous_bernoulli"
    support = frozenset({"levels", "continuous"})

    def outputs_per_pixel(self, channels: int) -> int:
        """One output for each channel."""
        return channels

    def log_prob(self, outputs: Pixels, x: Data, observed: Mask = None) -> Nats:
        """Nats per image; see `continuous_bernoulli_log_prob`."""
        return continuous_bernoulli_log_prob(outputs, x, observed)

    def mean(self, outputs: Pixels) -> Pixels:
        """Mean of each pixel, which isn't the parameter r; see `continuous_bernoulli_mean`."""
        return continuous_bernoulli_mean(outputs)

    def sample(self, outputs: Pixels, key: RandomKey) -> Pixels:
        """Images with pixels drawn from [0, 1], with the inverse of the distribution function."""
        return continuous_bernoulli_quantile(outputs, jax.random.uniform(key, outputs.shape, outputs.dtype))
