"""Poisson likelihood of counts."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.numerics import flat_event, flat_mask, sum_event
from vae_jax.shapes import Data, Mask, Nats, Pixels, RandomKey


def poisson_log_prob(log_rate: Pixels, x: Data, observed: Mask = None) -> Nats:
    """Log-probability of independent counts.

    `sum_i x_i l_i - exp(l_i) - log x_i!`

    Args:
        log_rate: Log of the mean of each count.
        x: Counts.
        observed: Which of them count; None for all.

    Returns:
        Nats per example.
    """
    log_rate, x = flat_event(log_rate), flat_event(x)
    return sum_event(x * log_rate - jnp.exp(log_rate) - jax.scipy.special.gammaln(x + 1.0), flat_mask(observed))


class Poisson(nn.Module):
    """Independent counts; the decoder outputs the logs of their means."""

    base_measure = "counts"
    support = frozenset({"counts"})

    def encoder_input(self, x: Pixels) -> Pixels:
        """`log(1 + x)`: what the encoder sees of counts, which may differ by factors of thousands."""
        return jnp.log1p(x)

    def outputs_per_pixel(self, channels: int) -> int:
        """One output for each channel."""
        return channels

    def log_prob(self, outputs: Pixels, x: Data, observed: Mask = None) -> Nats:
        """Nats per example; see `poisson_log_prob`."""
        return poisson_log_prob(outputs, x, observed)

    def mean(self, outputs: Pixels) -> Pixels:
        """Mean of each count."""
        return jnp.exp(outputs)

    def sample(self, outputs: Pixels, key: RandomKey) -> Pixels:
        """Counts."""
        return jax.random.poisson(key, jnp.exp(outputs), outputs.shape).astype(jnp.float32)
