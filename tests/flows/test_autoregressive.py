"""The masked network depends on what it may; one flow against its dense Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.flows import AutoregressiveNetwork, autoregressive_step


def scattered(network: AutoregressiveNetwork, z: jax.Array, context: jax.Array, scale: float) -> dict:
    rng = np.random.default_rng(1)
    variables = jax.jit(network.init)(jax.random.key(0), z, context)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf + scale * rng.normal(size=leaf.shape), z.dtype), variables)


@pytest.mark.long
@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("hidden", [(), (16,), (3, 8)])
def test_the_network_is_strictly_autoregressive(size: int, hidden: tuple[int, ...]) -> None:
    network = AutoregressiveNetwork(hidden)
    z, context = jnp.ones((1, 1, size)), jnp.ones((1, 4))
    variables = scattered(network, z, context, 1.0)

    def outputs(z: jax.Array, context: jax.Array) -> jax.Array:
        return jnp.stack([values[0, 0] for values in network.apply(variables, z[None, None], context[None])])

    by_z, by_context = jax.jit(jax.jacobian(outputs, (0, 1)))(z[0, 0], context[0])
    upper = np.triu(np.ones((size, size)))
    np.testing.assert_array_equal(np.asarray(by_z) * upper, 0.0)
    if hidden == (16,):  # Wide enough that whatever is allowed is also used.
        assert np.all(np.asarray(by_z)[:, upper == 0] != 0.0)
    if hidden:
        assert np.all(np.any(np.asarray(by_context) != 0.0, axis=-1))


def test_step_equals_the_formula() -> None:
    z, shift, gate = jnp.asarray([[[2.0]]]), jnp.asarray([[[-1.0]]]), jnp.asarray([[[0.0]]])
    moved, log_det = autoregressive_step(z, shift, gate)
    np.testing.assert_allclose(moved, [[[0.5]]])
    np.testing.assert_allclose(log_det, [[np.log(0.5)]])


def test_extreme_gates_are_finite() -> None:
    def total(*values: jax.Array) -> jax.Array:
        moved, log_det = autoregressive_step(*values)
        return jnp.sum(moved) + jnp.sum(log_det)

    values = jnp.full((1, 1, 4), 3.0), jnp.full((1, 1, 4), 1e3), jnp.array([[[-1e4, -100.0, 100.0, 1e4]]])
    assert all(np.isfinite(leaf).all() for leaf in jax.jit(jax.grad(total, (0, 1, 2)))(*values))
