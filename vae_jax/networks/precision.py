"""What leaves a network, whatever it was computed in."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def at_least_float32(values: Float[Array, "..."]) -> Float[Array, "..."]:
    """The values as float32 where they are narrower (bfloat16), else as they are.

    Log-densities are sums of hundreds of terms, for which the 8 bits of bfloat16 are too few.
    """
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))
