"""The planar flow against its formula in NumPy and its dense Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.flows import planar


def random_flow(size: int, scale: float, seed: int) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(scale * rng.normal(size=shape)) for shape in ((size,), (size,), (size,), ()))


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_log_det_is_that_of_the_dense_jacobian(size: int, scale: float) -> None:
    jacobian = jax.jit(jax.jacobian(lambda z, *flow: planar(z, *flow)[0]))
    with jax.enable_x64(True):
        for seed in range(5):
            z, *flow = random_flow(size, scale, seed)
            sign, expected = np.linalg.slogdet(jacobian(z, *flow))
            assert sign == 1  # Orientation is kept everywhere, so that the flow can be inverted.
            np.testing.assert_allclose(jax.jit(planar)(z, *flow)[1], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.long
def test_formula_of_the_paper() -> None:
    with jax.enable_x64(True):
        z, u, w, b = random_flow(3, 1.0, 0)
        moved, _ = planar(z, u, w, b)
        u_hat = (moved - z) / np.tanh(w @ z + b)
        # u is changed along w only, and so that w.u' >= -1.
        np.testing.assert_allclose(w @ u_hat, np.log1p((np.e - 1.0) * np.exp(w @ u)) - 1.0, rtol=1e-4)
        np.testing.assert_allclose(np.cross(u_hat - u, w), np.zeros(3), atol=1e-9)


def test_no_direction_is_the_identity() -> None:
    z, _, w, b = (value.astype(jnp.float32) for value in random_flow(4, 1.0, 0))
    moved, log_det = planar(z, jnp.zeros(4), w, b)
    np.testing.assert_allclose(moved, z, atol=2e-6)
    np.testing.assert_allclose(log_det, 0.0, atol=2e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e5])
def test_extreme_flows_are_finite(scale: float) -> None:

    def total(*values: jax.Array) -> jax.Array:
        return sum(jnp.sum(output) for output in planar(*values))

    values = [value.astype(jnp.float32) for value in random_flow(3, scale, 1)]
    outputs = jax.jit(planar)(*values)
    gradients = jax.jit(jax.grad(total, (0, 1, 2, 3)))(*values)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((outputs, gradients)))
