"""The model as a whole: labels, layers, a point without a density, and parts that don't fit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.likelihoods import Bernoulli
from vae_jax.models import VAE, Batch, HierarchicalPosterior, HierarchicalPrior, flat_point, init_variables, refusal
from vae_jax.networks import MLPDecoder, MLPEncoder
from vae_jax.posteriors import IAF, DiagonalGaussian, PointMass
from vae_jax.priors import RealNVP, StandardNormal, VampPrior

SHAPE = (2, 3, 1)


def images(count: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 2, (count, *SHAPE)), jnp.float32)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def model_of(posterior: nn.Module, prior: nn.Module, num_classes: int = 0) -> VAE:
    return VAE(MLPEncoder((6,)), posterior, prior, MLPDecoder((6,), SHAPE), Bernoulli(), num_classes)


def test_a_point_mass_has_no_bound() -> None:
    model = model_of(PointMass(5), StandardNormal(5))
    variables = init_variables(model, jax.random.key(0), SHAPE)
    joint = model.joint(variables, Batch(images(4)), noise=normal(3, 4, model.noise_size))
    assert joint.log_posterior is None and joint.kl is None
    with pytest.raises(ValueError, match="no importance weights"):
        _ = joint.log_weights


def test_a_label_reaches_encoder_and_decoder() -> None:
    model, x, z = model_of(DiagonalGaussian(5), StandardNormal(5), num_classes=3), images(2), normal(2, 5)
    variables = init_variables(model, jax.random.key(0), SHAPE)

    @jax.jit
    def told(context: jax.Array) -> tuple[jax.Array, jax.Array]:
        return model.encode(variables, Batch(x, context=context)).mean, model.decode(variables, z, context).outputs

    label = jnp.asarray([0, 2])
    # A class is one way to make a context: its one-hot numbers do the same.
    for ours, same, other in zip(told(label), told(jax.nn.one_hot(label, 3)), told(jnp.asarray([0, 1])), strict=True):
        np.testing.assert_array_equal(ours, same)
        np.testing.assert_array_equal(ours[0], other[0])
        assert not np.allclose(ours[1], other[1])
    for call in (lambda: model.encode(variables, Batch(x)), lambda: model.decode(variables, z)):
        with pytest.raises(ValueError, match="a context of 3 numbers or classes"):
            call()


def test_the_decoder_of_a_hierarchy_sees_the_lower_layer() -> None:
    model = model_of(HierarchicalPosterior(3, upper=2, hidden=(4,)), HierarchicalPrior(3, upper=2, hidden=(4,)))
    variables = init_variables(model, jax.random.key(0), SHAPE)
    assert variables["params"]["decoder"]["Dense_0"]["kernel"].shape[0] == 3
    lower, upper = normal(2, 3), normal(2, 2)
    decode = jax.jit(lambda upper: model.decode(variables, (lower, upper)).outputs)
    np.testing.assert_array_equal(decode(upper), decode(7.0 + upper))
    assert jax.eval_shape(lambda: flat_point(model, variables, Batch(images(2)))).shape == (2, 5)


FLOW, VAMP = IAF(5, flows=2, hidden=(8,)), VampPrior(5, SHAPE, components=4)
REFUSED = {
    "layers": (HierarchicalPosterior(3, upper=2), StandardNormal(5), 0, "hierarchical"),
    "density": (FLOW, VAMP, 0, "log_prob_anywhere"),
    "labels": (DiagonalGaussian(5), VAMP, 10, "a context"),
    "sizes": (DiagonalGaussian(4), StandardNormal(5), 0, "(5,) and (4,) latents"),
    "nothing": (FLOW, RealNVP(5, flows=2, hidden=(8,)), 10, None),
}


@pytest.mark.parametrize(("posterior", "prior", "num_classes", "words"), REFUSED.values(), ids=REFUSED)
def test_parts_that_do_not_fit_are_refused(posterior, prior, num_classes: int, words: str | None) -> None:
    reason = refusal(posterior, prior, num_classes)
    assert reason is None if words is None else words in str(reason)
