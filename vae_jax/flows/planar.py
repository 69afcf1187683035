"""Planar flow: expands or contracts space at a hyperplane."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.shapes import Nats, Points

# Keeps the slope of the flow away from 0, so that it stays invertible despite rounding.
_SMALLEST_SLOPE = 1e-6
_SMALLEST_SQUARE = 1e-12
_SHIFT = math.log(math.e - 1.0)


def planar(
    z: Float[Array, "*#batch d"], u: Float[Array, "*#batch d"], w: Float[Array, "*#batch d"], b: Float[Array, "*#batch"]
) -> tuple[Points, Nats]:
    """One planar flow, `f(z) = z + u' tanh(w.z + b)`, and the log of its Jacobian determinant.

    `f` is invertible if `w.u' > -1`. So u is moved along w until `w.u' = m(w.u)` with
    `m(a) = softplus(a + log(e - 1)) - 1`:
    `u' = u + [m(w.u) - w.u] w / |w|^2`, `log |det df/dz| = log(1 + (1 - tanh^2) w.u')`.

    In the paper m has no shift. With the shift m(0) = 0, so u = 0 is the identity; without it u' grows without bound as
    w goes to 0.

    Args:
        z: Points.
        u: Direction in which points move, before the constraint.
        w: Normal of the hyperplane.
        b: Offset of the hyperplane.

    Returns:
        f(z), and `log |det df/dz|` in nats.

    Source:
        Rezende & Mohamed, arXiv 1505.05770, eq. 10-12 and appendix A.1.
    """
    along = jnp.sum(w * u, axis=-1)
    slope = jax.nn.softplus(along + _SHIFT) + _SMALLEST_SLOPE
    square = jnp.maximum(jnp.sum(w * w, axis=-1), _SMALLEST_SQUARE)
    u = u + ((slope - 1.0 - along) / square)[..., None] * w
    bend = jnp.tanh(jnp.sum(w * z, axis=-1) + b)
    # 1 + (1 - bend^2) (slope - 1), rearranged to avoid cancellation.
    log_det = jnp.log(jnp.square(bend) + (1.0 - bend) * (1.0 + bend) * slope)
    return z + u * bend[..., None], log_det
