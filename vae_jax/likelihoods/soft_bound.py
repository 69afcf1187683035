"""A lower bound that lets a gradient through."""

import jax
from jaxtyping import Array, Float


def softly_above(values: Float[Array, "*shape"], minimum: float) -> Float[Array, "*shape"]:
    """`minimum + softplus(values - minimum)`: the values where they are far above the minimum, never below it."""
    return minimum + jax.nn.softplus(values - minimum)
