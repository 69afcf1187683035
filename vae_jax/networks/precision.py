"""The type of the output of a network."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def at_least_float32(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """The values as float32, if their type is narrower (bfloat16).

    Log-densities are sums of hundreds of terms, too many for the 8 bits of bfloat16.
    """
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
