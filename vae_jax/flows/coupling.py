"""Affine coupling: half of the dimensions determine scale and shift of the other half."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.shapes import Nats, Points

_LARGEST_LOG_SCALE = 2.0


class AffineCoupling(nn.Module):
    """`z_j = u_j` for the dimensions that are kept, `z_j = u_j exp(s_j) + t_j` for the others.

    s and t depend on the kept dimensions only, through tanh layers. |s| < 2, so that neither direction overflows. A new
    coupling is the identity.

    Attributes:
        hidden: Width of each layer.
        keep_even: Whether dimensions 0, 2, 4, ... are kept, or the others.

    Source:
        Dinh et al., arXiv 1605.08803, eq. 4-8.
    """

    hidden: tuple[int, ...]
    keep_even: bool

    @nn.compact
    def __call__(self, kept: Points) -> tuple[Points, Points]:
        """Log-scales s and shifts t, 0 for kept dimensions."""
        size = kept.shape[-1]
        keep = self._keep(size)
        features = kept * keep
        for width in self.hidden:
            features = nn.tanh(nn.Dense(width)(features))
        raw = nn.Dense(size, kernel_init=nn.initializers.zeros, name="log_scale")(features)
        shift = nn.Dense(size, kernel_init=nn.initializers.zeros, name="shift")(features)
        log_scale = _LARGEST_LOG_SCALE * jnp.tanh(raw / _LARGEST_LOG_SCALE)
        return (1.0 - keep) * log_scale, (1.0 - keep) * shift

    def _keep(self, size: int) -> Float[Array, "d"]:
        return ((jnp.arange(size) % 2 == 0) == self.keep_even).astype(jnp.float32)

    def forward(self, u: Points) -> Points:
        """From u to z."""
        log_scale, shift = self(u)
        return u * jnp.exp(log_scale) + shift

    def inverse(self, z: Points) -> tuple[Points, Nats]:
        """From z to u, with `log |det du/dz|` in nats."""
        log_scale, shift = self(z)
        return (z - shift) * jnp.exp(-log_scale), -jnp.sum(log_scale, axis=-1)
