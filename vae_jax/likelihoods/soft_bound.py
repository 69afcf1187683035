"""A lower bound with a gradient everywhere."""

import jax
from jaxtyping import Array, Float


def softly_above(values: Float[Array, "*shape"], minimum: float) -> Float[Array, "*shape"]:
    """`minimum + softplus(values - minimum)`: close to values far above the minimum, never below the minimum."""
    return minimum + jax.nn.softplus(values - minimum)
