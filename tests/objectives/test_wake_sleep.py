"""Two losses for two sets of parameters, each against its own gradient worked out apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses import binary_images, loss_of, scattered

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import Batch
from vae_jax.noise import standard_normal
from vae_jax.objectives import WakeSleep

SHAPE = (2, 2, 1)
BATCH = 5
KEY = jax.random.key(4)
STEP = jnp.int32(0)
IMAGES = binary_images(BATCH, SHAPE)
MODEL = build_model(ModelConfig(network="mlp(hidden=(3,))", prior="mixture(components=2)", latents=2), SHAPE)


def parameters() -> dict:
    return scattered(MODEL, SHAPE, 0.4)


@functools.cache
def found():
    """Value, terms and gradient of the objective."""
    loss = jax.value_and_grad(lambda params: loss_of(WakeSleep(), MODEL, params, IMAGES, KEY, STEP), has_aux=True)
    return jax.jit(loss)(parameters())


@functools.cache
def draws() -> tuple[jax.Array, jax.Array, jax.Array]:
    """z of the real images; z and x that the model dreams: the objective's own, from its three keys."""

    def drawn(params: dict):
        noise_key, prior_key, dream_key = jax.random.split(KEY, 3)
        variables = {"params": params}
        awake = MODEL.joint(variables, Batch(IMAGES), noise=standard_normal(noise_key, (1, BATCH, 2))).z[0]
        asleep = MODEL.sample_prior(variables, prior_key, BATCH)
        return awake, asleep, MODEL.decode(variables, asleep).sample(dream_key)

    return jax.jit(drawn)(parameters())


def dense(layer: dict, values: jax.Array) -> jax.Array:
    return values @ layer["kernel"] + layer["bias"]


def normal_log_density(z: jax.Array, mean: jax.Array, logvar: jax.Array) -> jax.Array:
    return jnp.sum(jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(0.5 * logvar)), axis=-1)


def wake_loss(params: dict, drawn: tuple) -> jax.Array:
    """`-log p(x, z)`, without the project's model: a Bernoulli decoder of one ReLU layer and a mixture."""
    z, x = drawn[0], IMAGES.reshape(BATCH, -1)
    decoder, prior = params["decoder"], params["prior"]
    probability = jax.nn.sigmoid(dense(decoder["Dense_1"], jax.nn.relu(dense(decoder["Dense_0"], z))))
    log_likelihood = jnp.sum(jnp.log(jnp.where(x == 1.0, probability, 1.0 - probability)), axis=-1)
    each = [normal_log_density(z, prior["means"][c], prior["logvars"][c]) for c in range(2)]
    shares = jnp.exp(prior["logits"]) / jnp.sum(jnp.exp(prior["logits"]))
    return -jnp.mean(log_likelihood + jnp.log(sum(shares[c] * jnp.exp(each[c]) for c in range(2))))


def sleep_loss(params: dict, drawn: tuple) -> jax.Array:
    """`-log q(z|x)` of the dream, without the project's model."""
    _, z, x = drawn
    features = jax.nn.relu(dense(params["encoder"]["Dense_0"], x.reshape(BATCH, -1)))
    heads = params["posterior"]
    return -jnp.mean(normal_log_density(z, dense(heads["mean"], features), dense(heads["logvar"], features)))


@pytest.mark.long
@pytest.mark.parametrize(("parts", "loss"), [(("encoder", "posterior"), sleep_loss), (("decoder", "prior"), wake_loss)])
def test_each_half_learns_from_its_own_loss_alone(parts: tuple[str, str], loss) -> None:
    """The dreams that the model draws add nothing to its gradient, nor does the encoder's z to the encoder's."""
    (value, terms), gradient = found()
    expected = jax.jit(jax.grad(loss))(parameters(), draws())
    for part in parts:
        for ours, theirs in zip(jax.tree.leaves(gradient[part]), jax.tree.leaves(expected[part]), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient[part])) > 1e-2
    both = jax.jit(lambda params: wake_loss(params, draws()) + sleep_loss(params, draws()))(parameters())
    np.testing.assert_allclose(value, both, rtol=1e-5)
    np.testing.assert_allclose(terms.elbo, terms.reconstruction - terms.kl, rtol=1e-5)
