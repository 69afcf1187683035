"""Bernoulli likelihood of binary images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.numerics import sum_event


@jax.custom_jvp
def _softplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`log(1 + exp(x))`. JAX's own derivative of it costs twice the logistic function that it is."""
    return jax.nn.softplus(x)


@_softplus.defjvp
def _softplus_jvp(
    primals: tuple[Float[Array, "*shape"]], tangents: tuple[Float[Array, "*shape"]]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    (x,), (tangent,) = primals, tangents
    return _softplus(x), jax.nn.sigmoid(x) * tangent


def bernoulli_log_prob(
    logits: Float[Array, "*batch h w c"], x: Float[Array, "*#batch h w c"]
) -> Float[Array, "*batch"]:
    """Log-probability of binary images under independent Bernoulli pixels.

    `sum_i x_i log s(l_i) + (1 - x_i) log(1 - s(l_i)) = sum_i x_i l_i - softplus(l_i)` with `s` the
    logistic function, written so that no logit overflows.

    Args:
        logits: `log p / (1 - p)` of each pixel.
        x: Pixels, 0 or 1.

    Returns:
        Nats per image.

    Source:
        Kingma & Welling 2014, appendix C.1.
    """
    return sum_event(x * logits - _softplus(logits))


class Bernoulli(nn.Module):
    """Independent Bernoulli pixels; the decoder puts out logits."""

    measure = "binary"
    fits = frozenset({"binary"})

    def outputs_per_pixel(self, channels: int) -> int:
        """One number for each channel."""
        return channels

    def log_prob(
        self, outputs: Float[Array, "*batch h w c"], x: Float[Array, "*#batch h w c"]
    ) -> Float[Array, "*batch"]:
        """Nats per image; see `bernoulli_log_prob`."""
        return bernoulli_log_prob(outputs, x)

    def mean(self, outputs: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h w c"]:
        """Probability that each pixel is 1."""
        return jax.nn.sigmoid(outputs)

    def sample(self, outputs: Float[Array, "*batch h w c"], key: Key[Array, ""]) -> Float[Array, "*batch h w c"]:
        """Binary images."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(outputs)).astype(jnp.float32)
