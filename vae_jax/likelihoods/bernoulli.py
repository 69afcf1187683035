"""Bernoulli likelihood of binary images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.numerics import flat_event, sum_event
from vae_jax.shapes import Data, Mask, Nats, Pixels, RandomKey

# Products are at most 2^16, far below the largest float32; the fastest of the numbers tried.
_MOST_FACTORS = 16


@jax.custom_jvp
def bernoulli_log_prob(logits: Pixels, x: Data) -> Nats:
    """Log-probability of binary images under independent Bernoulli pixels.

    `sum_i x_i log s(l_i) + (1 - x_i) log(1 - s(l_i)) = sum_i x_i l_i - softplus(l_i)` with `s` the
    logistic function. `softplus(l) = max(l, 0) + log(1 + exp(-|l|))`, so that no logit overflows. Logarithms are
    taken of products of several pixels, `sum_i log t_i = log prod_i t_i` with t in [1, 2], as estimates of log p(x)
    spend more time on this sum than in the decoder.

    Args:
        logits: `log p / (1 - p)` of each pixel.
        x: Pixels, 0 or 1.

    Returns:
        Nats per image.

    Source:
        Kingma & Welling 2014, appendix C.1.
    """
    logits, x = flat_event(logits), flat_event(x)
    linear = x * logits - jnp.maximum(logits, 0.0)
    return sum_event(linear) - _sum_of_logs(1.0 + jnp.exp(-jnp.abs(logits)))


@bernoulli_log_prob.defjvp
def _bernoulli_log_prob_jvp(primals: tuple[Pixels, Data], tangents: tuple[Pixels, Data]) -> tuple[Nats, Nats]:
    logits, x, of_logits, of_x = (flat_event(array) for array in (*primals, *tangents))
    # Pixel minus probability: several times faster than differentiating the operations of the value.
    return bernoulli_log_prob(*primals), sum_event((x - jax.nn.sigmoid(logits)) * of_logits + logits * of_x)


def _sum_of_logs(factors: Float[Array, "*batch p"]) -> Nats:
    """Sum of the logarithms of values in [1, 2], as logarithms of products of several values."""
    factors = factors.astype(jnp.promote_types(factors.dtype, jnp.float32))
    in_product = max(n for n in range(1, _MOST_FACTORS + 1) if factors.shape[-1] % n == 0)
    products = jnp.prod(factors.reshape(*factors.shape[:-1], in_product, -1), axis=-2)
    return jnp.sum(jnp.log(products), axis=-1)


class Bernoulli(nn.Module):
    """Independent Bernoulli pixels; the decoder outputs logits."""

    base_measure = "binary"
    mean_in_page = "sigmoid"
    support = frozenset({"binary"})

    def outputs_per_pixel(self, channels: int) -> int:
        """One output for each channel."""
        return channels

    def log_prob(self, outputs: Pixels, x: Data, observed: Mask = None) -> Nats:
        """Nats per image; see `bernoulli_log_prob`."""
        if observed is None:
            return bernoulli_log_prob(outputs, x)
        return sum_event(flat_event(x * outputs - jax.nn.softplus(outputs)), flat_event(observed))

    def mean(self, outputs: Pixels) -> Pixels:
        """Probability that each pixel is 1."""
        return jax.nn.sigmoid(outputs)

    def sample(self, outputs: Pixels, key: RandomKey) -> Pixels:
        """Binary images."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(outputs)).astype(jnp.float32)
