"""Inverse autoregressive flow, and its masked network."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vae_jax.shapes import PerSample, Samples

# The gate starts near 1, so that a new flow is close to the identity, as the paper recommends.
_GATE_BIAS = 2.0

Initializer = Callable[..., jax.Array]


class MaskedDense(nn.Module):
    """A linear map with some weights fixed at 0.

    Attributes:
        mask: 1 where an output (column) may depend on an input (row); nested tuples, so that it is hashable.
        kernel_init: Initializer of the weights.
    """

    mask: tuple[tuple[int, ...], ...]
    kernel_init: Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, inputs: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        """`inputs (kernel * mask) + bias`."""
        mask = np.asarray(self.mask, np.float32)
        kernel = self.param("kernel", self.kernel_init, mask.shape)
        bias = self.param("bias", nn.initializers.zeros, mask.shape[1:])
        return inputs @ (kernel * mask) + bias


def _may_act(
    inputs: np.ndarray, outputs: np.ndarray, compare: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[tuple[int, ...], ...]:
    mask = compare(outputs[None, :], inputs[:, None])
    return tuple(tuple(int(entry) for entry in row) for row in mask)


class AutoregressiveNetwork(nn.Module):
    """Two numbers for each dimension of z that depend on earlier dimensions and on a context.

    Each unit has a degree, and depends only on the dimensions `1 ... degree`. Degrees of hidden units are spread over
    `0 ... D - 1`; units with degree 0 depend only on the context.

    Attributes:
        hidden: Width of each layer.

    Source:
        Germain et al., MADE, arXiv 1502.03509, eq. 8 and 9.
    """

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Samples, context: Float[Array, "b f"]) -> tuple[Samples, Samples]:
        """Shift m and gate s; entry j of either depends on `z_1 ... z_(j-1)` and the context."""
        latents = z.shape[-1]
        degrees, features = np.arange(1, latents + 1), z
        for index, width in enumerate(self.hidden):
            hidden_degrees = np.arange(width) * latents // width
            features = MaskedDense(_may_act(degrees, hidden_degrees, np.greater_equal))(features)
            if index == 0:
                features = features + nn.Dense(width, use_bias=False, name="context")(context)
            degrees, features = hidden_degrees, nn.elu(features)
        mask = _may_act(degrees, np.arange(1, latents + 1), np.greater)
        small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        shift = MaskedDense(mask, small, name="shift")(features)
        gate = MaskedDense(mask, small, name="gate")(features)
        return shift, gate + _GATE_BIAS


def autoregressive_step(z: Samples, shift: Samples, gate: Samples) -> tuple[Samples, PerSample]:
    """One inverse autoregressive flow in its numerically stable form, and its log-determinant.

    `z' = s(gate) z + (1 - s(gate)) shift`, `log |det dz'/dz| = sum_j log s(gate_j)` with `s` the logistic
    function, because the Jacobian is triangular.

    Args:
        z: Points.
        shift: m of the paper.
        gate: s of the paper.

    Returns:
        z', and the log-determinant in nats.

    Source:
        Kingma et al., arXiv 1606.04934, eq. 13 and 14, algorithm 1.
    """
    moved = jax.nn.sigmoid(gate) * z + jax.nn.sigmoid(-gate) * shift
    return moved, jnp.sum(jax.nn.log_sigmoid(gate), axis=-1)
