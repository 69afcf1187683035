"""Products of programs against counts by hand and against XLA's own."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import build
from vae_jax.config import Config, ModelConfig, TrainConfig
from vae_jax.data import Data, Dataset
from vae_jax.performance.parts import Parts
from vae_jax.performance.products import products_of, repeated, repetitions, total_flops
from vae_jax.sharding import batch_mesh

BATCH, PIXELS, HIDDEN, LATENTS = 16, 30, 12, 3


def parts_of(config: Config, shape: tuple[int, int, int] = (5, 6, 1)) -> Parts:
    images = np.random.default_rng(0).integers(0, 256, (40, *shape), dtype=np.uint8)
    data = Data(Dataset("random", images, images[:1], None, None, 255, ""), "dynamic", 0.0, 0)
    return Parts.of(config, data)


def mlp(**changes) -> Config:
    model, train = ModelConfig(hidden=(HIDDEN,), latents=LATENTS), TrainConfig(batch_size=BATCH)
    return Config(model=model, train=train, **changes)


def flops_by_hand() -> int:
    """Forward, gradient of the weights, and gradient of the inputs but for the images."""
    sizes = [PIXELS * HIDDEN, HIDDEN * LATENTS, HIDDEN * LATENTS, LATENTS * HIDDEN, HIDDEN * PIXELS]
    return 2 * BATCH * (3 * sum(sizes) - PIXELS * HIDDEN)


def test_step_of_fully_connected_networks() -> None:
    products = parts_of(mlp()).products()
    assert total_flops(products) == flops_by_hand()
    assert sum(product.count for product in products) == 14
    # Both heads have the same shapes and are one kind.
    heads = [product for product in products if product.operands[1].shape == (HIDDEN, LATENTS) and product.count == 2]
    assert [product.output.shape for product in heads] == [(BATCH, LATENTS), (BATCH, HIDDEN)]


def test_replicas_are_counted() -> None:
    assert total_flops(parts_of(mlp(num_seeds=3)).products()) == 3 * flops_by_hand()


def test_parts_of_a_batch_are_counted_as_often_as_they_run() -> None:
    config = Config(
        model=ModelConfig(hidden=(HIDDEN,), latents=LATENTS), train=TrainConfig(batch_size=BATCH, accumulation=4)
    )
    products = parts_of(config).products()
    assert total_flops(products) == flops_by_hand()
    assert {product.count % 4 for product in products} == {0}


@pytest.mark.parametrize("accumulation", [1, 4])
def test_devices_share_a_batch(accumulation: int) -> None:
    train = TrainConfig(batch_size=BATCH, accumulation=accumulation)
    parts = parts_of(Config(model=ModelConfig(hidden=(HIDDEN,), latents=LATENTS), train=train))
    assert 8 * total_flops(parts.products(8)) == total_flops(parts.products())


@pytest.mark.parametrize("network", ["conv", "resnet"])
def test_flops_of_convolutions_are_those_of_xla(network: str) -> None:
    """XLA counts everything; what isn't a product is a small part of it, and never negative."""
    config = Config(model=ModelConfig(network=network, hidden=(24, 32), latents=2), train=TrainConfig(batch_size=8))
    parts = parts_of(config, (12, 12, 1))
    model, x = parts.model, jnp.zeros((8, 12, 12, 1))
    params = jax.eval_shape(parts.fresh).params
    loss = build.build_loss(config, model, 40)

    def gradient(params, x, key):
        return jax.grad(lambda params: loss(params, x, key, jnp.int32(0))[0])(params)

    arguments = params, x, jax.random.key(0)
    counted = total_flops(products_of(gradient, *arguments, platform="tpu"))
    of_xla = jax.jit(gradient).trace(*arguments).lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]
    assert 0.85 * of_xla < counted <= of_xla


def test_products_are_those_of_a_platform() -> None:
    def square(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x @ x @ x, cuda=lambda x: x, default=lambda x: x @ x)

    counted = {
        platform: total_flops(products_of(square, jnp.ones((4, 4)), platform=platform))
        for platform in ("cpu", "gpu", "tpu", None)
    }
    assert counted == {"cpu": 256, "gpu": 0, "tpu": 128, None: 256}


CONVOLUTIONS = {
    "same": {"window_strides": (1, 1), "padding": "SAME"},
    "valid": {"window_strides": (1, 2), "padding": "VALID"},
    "strided": {"window_strides": (2, 2), "padding": ((1, 2), (0, 1))},
    "transposed": {"window_strides": (1, 1), "padding": ((2, 2), (2, 1)), "lhs_dilation": (2, 2)},
    "atrous": {"window_strides": (1, 1), "padding": "SAME", "rhs_dilation": (2, 1)},
    "cropped": {"window_strides": (1, 1), "padding": ((-1, -2), (0, 0))},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("groups", [1, 2])
def test_one_convolution_is_counted_as_xla_does(name: str, groups: int) -> None:
    x, kernel = jnp.zeros((3, 9, 7, 4)), jnp.zeros((3, 4, 4 // groups, 6))

    def convolve(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, dimension_numbers=dimensions, feature_group_count=groups, **CONVOLUTIONS[name]
        )

    (product,) = products_of(convolve, x, kernel)
    assert product.flops == jax.jit(convolve).lower(x, kernel).cost_analysis()["flops"]


def test_gradients_of_grouped_convolutions() -> None:
    x, kernel = jnp.zeros((3, 9, 7, 4)), jnp.zeros((3, 4, 2, 6))

    def gradients(x, kernel):
        def total(x, kernel):
            dimensions = ("NHWC", "HWIO", "NHWC")
            result = jax.lax.conv_general_dilated(x, kernel, (2, 1), "SAME", (1, 1), (1, 1), dimensions, 2)
            return jnp.sum(jnp.square(result))

        return jax.grad(total, argnums=(0, 1))(x, kernel)

    products = products_of(gradients, x, kernel)
    assert sum(product.count for product in products) == 3
    # Each number of the result meets the same pairs, whichever of the three is summed over.
    assert len({product.flops for product in products}) == 1


def test_batch_dimensions_and_contractions() -> None:
    def two(a, b):
        return jnp.einsum("bij,bkj->bik", a, b), jnp.einsum("bij,bij->", a, a)

    products = products_of(two, jnp.zeros((5, 2, 3)), jnp.zeros((5, 7, 3)))
    assert sorted(product.flops for product in products) == sorted([2 * 5 * 2 * 7 * 3, 2 * 5 * 2 * 3])


def test_loops_and_conditions() -> None:
    a = jnp.zeros((4, 4))
    one = 2 * 4**3

    def scanned(a):
        return jax.lax.scan(lambda carry, _: (jax.lax.fori_loop(0, 3, lambda _, b: b @ a, carry), None), a, length=5)

    def branches(a, flag):
        return jax.lax.cond(flag, lambda a: a @ a @ a, lambda a: a @ a, a)

    def endless(a):
        return jax.lax.while_loop(lambda a: a[0, 0] < 1.0, lambda b: b @ a, a)

    assert total_flops(products_of(scanned, a)) == 15 * one
    assert total_flops(products_of(branches, a, True)) == 2 * one
    assert total_flops(products_of(endless, a)) == one


def test_what_nobody_needs_is_not_counted() -> None:
    def wasteful(a):
        _ = jax.jit(jnp.matmul)(a, a)
        return a @ a[:, :1]

    assert total_flops(products_of(wasteful, jnp.zeros((4, 4)))) == 2 * 4 * 4


@pytest.mark.parametrize("in_one_call", [True, False])
@pytest.mark.parametrize("devices", [1, 4])
def test_products_are_repeated_as_they_are(in_one_call: bool, devices: int) -> None:
    def transposed(a, b):
        return jax.lax.dot_general(a, b, (((0,), (0,)), ((), ())))

    (product,) = products_of(transposed, jnp.zeros((3, 4)), jnp.zeros((3, 5)))
    mesh = batch_mesh(devices, jax.devices()[:devices])
    run = repeated(product, mesh, 3, in_one_call)
    result = np.asarray(run())
    assert result.shape == (devices, 4, 5)
    left, right = (
        np.asarray(jax.random.normal(jax.random.key(index), (devices, *operand.shape)))
        for index, operand in enumerate(product.operands)
    )
    expected = np.einsum("dki,dkj->dij", left, right)
    # The corner of the left operand came from the result before: its column, no other, differs.
    np.testing.assert_allclose(result[:, 1:], expected[:, 1:], rtol=1e-5)
    assert not np.allclose(result[:, 0], expected[:, 0], rtol=1e-5)


def test_each_repetition_depends_on_the_one_before() -> None:
    """So that none can be left out, or taken out of the loop."""
    (product,) = products_of(jnp.matmul, jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    results = [float(repeated(product, batch_mesh(1), times)()[0, 0, 0]) for times in (1, 2, 3)]
    right = results[0] / float(jax.random.normal(jax.random.key(0), (1, 1, 1))[0, 0, 0])
    assert results[1:] == pytest.approx([1e-9 * right * results[0], 1e-18 * right**2 * results[0]])


def test_number_of_repetitions() -> None:
    (product,) = products_of(jnp.matmul, jnp.zeros((10, 10)), jnp.zeros((10, 10)))
    assert repetitions(product, 2000.0 * 100, 1.0) == 100
    assert repetitions(product, 1.0, 1.0) == 4
    assert math.isfinite(repetitions(product, 1e30, 1.0))
