"""`log(sinh(h) / h)` near its removable singularity, for normalizers and probabilities of bins."""

import jax.numpy as jnp
from jaxtyping import Array, Float

# Coefficients of h^2, h^4, ...: 2^(2n) B_2n / (2n (2n)!) with the Bernoulli numbers B_2n.
_COEFFICIENTS = (1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775, -691 / 3831077250)


def log_sinhc_series(h: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`log(sinh(h) / h)` for |h| <= 1/2 by its series at 0; the error is below 1e-12."""
    square = jnp.square(h)
    series = jnp.zeros_like(h)
    for coefficient in reversed(_COEFFICIENTS):
        series = square * (coefficient + series)
    return series
