"""Encoders and decoders: any size of image, context, precision, and no parameter left behind."""

import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder, ResNetDecoder, ResNetEncoder
from vae_jax.networks.upsampling import Upsample

SHAPES = [(28, 20, 1), (7, 5, 3), (8, 8, 1), (128, 128, 3), (1, 9, 2)]
ENCODERS = {"mlp": MLPEncoder, "conv": ConvEncoder, "resnet": ResNetEncoder}
DECODERS = {
    "mlp": MLPDecoder,
    "conv_transpose": functools.partial(ConvDecoder, upsampling="transpose"),
    "conv_resize": functools.partial(ConvDecoder, upsampling="resize"),
    "resnet_transpose": functools.partial(ResNetDecoder, upsampling="transpose", blocks=2),
    "resnet_resize": functools.partial(ResNetDecoder, upsampling="resize"),
}
SMALL = (7, 5, 2)


def images(shape: tuple[int, int, int] = SMALL) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).uniform(size=(3, *shape)), jnp.float32)


def latents() -> jax.Array:
    return jnp.asarray(np.random.default_rng(2).normal(size=(3, 4)), jnp.float32)


def random_params(network: nn.Module, *inputs: jax.Array):
    """Parameters none of which is zero, as some are at the start, and hide others by it."""
    rng = np.random.default_rng(3)
    variables = jax.eval_shape(network.init, jax.random.key(0), *inputs)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(rng.normal(0.0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape), leaf.dtype)

    return jax.tree.map(draw, variables)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_takes_any_size(name: str, shape: tuple[int, int, int]) -> None:
    encoder = ENCODERS[name](hidden=(8, 6, 4))
    features, variables = jax.eval_shape(lambda x: encoder.init_with_output(jax.random.key(0), x), images(shape))
    assert features.shape[0] == 3 and features.ndim == 2
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_gives_any_size(name: str, shape: tuple[int, int, int]) -> None:
    decoder = DECODERS[name](hidden=(8, 6, 4), image_shape=shape)
    outputs, _ = jax.eval_shape(lambda z: decoder.init_with_output(jax.random.key(0), z), latents())
    assert outputs.shape == (3, *shape)


@pytest.mark.long
@pytest.mark.parametrize("name", ENCODERS)
def test_gradient_reaches_every_parameter_of_an_encoder_and_its_context(name: str) -> None:
    encoder = ENCODERS[name](hidden=(8, 16), activation=nn.silu)
    context = jax.nn.one_hot(jnp.arange(3), 4)
    params = random_params(encoder, images(), context)

    def loss(params, context):
        return jnp.sum(jnp.sin(encoder.apply(params, images(), context)))

    of_params, of_context = jax.jit(jax.grad(loss, (0, 1)))(params, context)
    assert all(jnp.any(leaf != 0) and jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((of_params, of_context)))
    apply = jax.jit(encoder.apply)
    features, others = apply(params, images(), context), apply(params, images(), context[::-1])
    assert not np.allclose(features, others)
    assert features.dtype == jnp.float32
    # Each image has its own context: the middle one kept what it had.
    np.testing.assert_allclose(features[1], others[1], rtol=1e-5, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", DECODERS)
def test_gradient_reaches_every_parameter_of_a_decoder_and_the_latents(name: str) -> None:
    decoder = DECODERS[name](hidden=(16, 8), image_shape=SMALL, activation=nn.silu)
    params = random_params(decoder, latents())
    of_params, of_latents = jax.jit(jax.grad(lambda p, z: jnp.sum(jnp.sin(decoder.apply(p, z))), (0, 1)))(
        params, latents()
    )
    assert all(jnp.any(leaf != 0) and jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((of_params, of_latents)))


def networks_in(dtype) -> list[tuple[nn.Module, jax.Array]]:
    encoders = [(encoder(hidden=(8, 16), dtype=dtype), images()) for encoder in ENCODERS.values()]
    decoders = [(decoder(hidden=(16, 8), image_shape=SMALL, dtype=dtype), latents()) for decoder in DECODERS.values()]
    return encoders + decoders


@pytest.mark.long
def test_bfloat16_computes_with_float32_parameters_and_outputs() -> None:
    for (network, inputs), (exact, _) in zip(networks_in(jnp.bfloat16), networks_in(None), strict=True):
        params = random_params(network, inputs)
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
        outputs, expected = jax.jit(network.apply)(params, inputs), jax.jit(exact.apply)(params, inputs)
        assert outputs.dtype == expected.dtype == jnp.float32
        difference = np.abs(outputs - expected).max() / np.abs(expected).max()
        assert 1e-5 < difference < 0.05


def test_upsampling_by_phases_is_a_transposed_convolution() -> None:
    layer = Upsample(3, (12, 10), "transpose")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 5, 4)), jnp.float32)
    params = random_params(layer, x)
    phases = params["params"]["Conv_0"]["kernel"].reshape(2, 2, 4, 2, 2, 3)
    kernel = np.zeros((4, 4, 4, 3), np.float32)
    # Tap t of output phase p: where it lies in the kernel of the convolution with the dilated input.
    place = {(0, 0): 1, (0, 1): 0, (1, 0): 3, (1, 1): 2}
    for (tap_h, phase_h), row in place.items():
        for (tap_w, phase_w), column in place.items():
            kernel[row, column] = phases[tap_h, tap_w, :, phase_h, phase_w]
    expected = jax.lax.conv_transpose(x, jnp.asarray(kernel), (2, 2), "SAME") + params["params"]["bias"]
    np.testing.assert_allclose(layer.apply(params, x), expected, rtol=1e-4, atol=1e-4)
    cropped = Upsample(3, (11, 9), "transpose").apply(params, x)
    np.testing.assert_allclose(cropped, expected[:, :11, :9], rtol=1e-4, atol=1e-4)


def test_upsampling_by_repetition_gives_each_pixel_four_times() -> None:
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    center = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    params = {"params": {"Conv_0": {"kernel": center, "bias": jnp.zeros(1)}}}
    larger = Upsample(1, (4, 5), "resize").apply(params, x)
    np.testing.assert_allclose(larger[0, :, :, 0], np.kron(x[0, :, :, 0], np.ones((2, 2)))[:, :5])


def test_no_layers_is_a_linear_map_for_mlp_and_refused_by_the_others() -> None:
    features, _ = MLPEncoder(()).init_with_output(jax.random.key(0), images(), jnp.ones((3, 4)))
    assert features.shape == (3, functools.reduce(operator.mul, SMALL) + 4)
    for encoder in (ConvEncoder(()), ResNetEncoder(())):
        with pytest.raises(ValueError, match="at least one width"):
            encoder.init(jax.random.key(0), images())
    for decoder in (ConvDecoder((), SMALL), ResNetDecoder((), SMALL)):
        with pytest.raises(ValueError, match="at least one width"):
            decoder.init(jax.random.key(0), latents())
