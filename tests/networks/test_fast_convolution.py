"""Convolutions with gradients of their own, beside Flax's and finite differences."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from vae_jax.networks.fast_convolution import Conv


def _total(module: nn.Module, params: Any, x: jax.Array) -> jax.Array:
    """A number that depends on every output in another way."""
    return jnp.sum(jnp.sin(jnp.asarray(module.apply(params, x))))


LAYERS = {
    "same": ((3, 3), 1, "SAME", (8, 7)),
    "halving": ((3, 3), 2, "SAME", (8, 7)),
    "even kernel, odd size": ((4, 4), 2, "SAME", (7, 7)),
    "valid": ((2, 2), 1, "VALID", (5, 6)),
    "uneven padding": ((3, 2), 1, [(0, 1), (2, 1)], (5, 6)),
}


@pytest.mark.long
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_map_and_gradients_are_those_of_flax(layer: tuple) -> None:
    kernel, stride, padding, size = layer
    ours, theirs = (kind(5, kernel, strides=(stride, stride), padding=padding) for kind in (Conv, nn.Conv))
    x = jax.random.normal(jax.random.key(0), (4, *size, 3))
    params = theirs.init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, ours.init(jax.random.key(1), x)) == jax.tree.map(jnp.shape, params)

    def gradients(module: nn.Module) -> Any:
        return jax.value_and_grad(partial(_total, module), (0, 1))(params, x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), gradients(ours), gradients(theirs))


def test_gradients_are_those_of_finite_differences() -> None:
    module = Conv(2, (3, 3), strides=(2, 2))
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 2))
    params = module.init(jax.random.key(1), x)
    jax.test_util.check_grads(partial(_total, module), (params, x), 1, ["rev"], atol=1e-2, rtol=1e-2)


def test_elsewhere_it_is_a_convolution() -> None:
    module = Conv(4, (3, 3))
    x = jnp.ones((2, 6, 6, 3))
    params = module.init(jax.random.key(0), x)
    step = jax.jit(jax.grad(lambda params: _total(module, params, x)))
    cpu, gpu = (step.trace(params).lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "cuda"))
    assert "dot_general" in cpu and "dot_general" not in gpu and gpu.count("stablehlo.convolution") == 2
