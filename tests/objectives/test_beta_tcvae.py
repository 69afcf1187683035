"""The decomposed KL term against loops, and against densities that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from losses import binary_images, loss_of, scattered

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import Batch
from vae_jax.noise import standard_normal
from vae_jax.objectives import BetaTcvae, kl_parts

SHAPE = (2, 2, 1)
MODEL = build_model(ModelConfig(network="mlp(hidden=(4,))", latents=3), SHAPE)
KEY = jax.random.key(3)
STEP = jnp.int32(0)
NUM_IMAGES = 50
BATCH = 6
IMAGES = binary_images(BATCH, SHAPE)


def parameters() -> dict:
    return scattered(MODEL, SHAPE, 0.7)


def by_loops(mean: np.ndarray, stddev: np.ndarray, z: np.ndarray, num_images: int) -> tuple[float, float, float]:
    """Chen et al., eq. 2 with the estimator of appendix C.1, image by image."""
    batch, latents = z.shape
    parts = []
    for i in range(batch):
        densities = np.array(
            [[scipy.stats.norm.pdf(z[i, d], mean[j, d], stddev[j, d]) for d in range(latents)] for j in range(batch)]
        )
        log_joint = np.log(np.prod(densities[i]))
        log_aggregate = np.log(sum(np.prod(row) for row in densities) / (num_images * batch))
        log_product = sum(np.log(np.sum(densities[:, d]) / (num_images * batch)) for d in range(latents))
        log_prior = scipy.stats.norm.logpdf(z[i]).sum()
        parts.append((log_joint - log_aggregate, log_aggregate - log_product, log_product - log_prior))
    mutual_information, total_correlation, rest = np.mean(parts, axis=0)
    return mutual_information, total_correlation, rest


@functools.cache
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means, standard deviations and the z that the objective draws with `KEY`."""
    encoded = jax.jit(lambda params: MODEL.encode({"params": params}, Batch(IMAGES)))(parameters())
    mean, stddev = np.asarray(encoded.mean, np.float64), np.exp(0.5 * np.asarray(encoded.logvar, np.float64))
    return mean, stddev, mean + stddev * np.asarray(standard_normal(KEY, (1, BATCH, 3)))[0]


def test_total_correlation_of_independent_and_of_copied_latents() -> None:
    # All images have one posterior, whose components are independent: nothing is known of the image from z,
    # so that what is left is what the estimator adds, log N for each density that it takes for too low.
    z = np.random.default_rng(5).normal(size=(40, 2))
    each = scipy.stats.norm.logpdf(z)
    log_pairs = jnp.asarray(np.broadcast_to(each[:, None], (40, 40, 2)))
    compiled = jax.jit(kl_parts, static_argnums=2)
    parts = compiled(log_pairs, jnp.asarray(each.sum(-1)), 100)
    np.testing.assert_allclose(parts, [np.log(100), np.log(100), -2 * np.log(100)], rtol=1e-5)
    # Where both latents say which image it is, sharply, each of 40 is worth log 40 and the second is a copy.
    places = np.arange(40.0)
    sharp = scipy.stats.norm.logpdf(places[:, None, None], places[None, :, None], 0.01) * np.ones(2)
    parts = compiled(jnp.asarray(sharp), jnp.zeros(40), 1)
    np.testing.assert_allclose(parts.mutual_information, np.log(40), rtol=1e-5)
    np.testing.assert_allclose(parts.total_correlation, -np.log(40) + 2 * np.log(40), rtol=1e-5)


def test_loss_is_the_weighted_sum_of_the_parts_of_its_own_draw() -> None:
    objective = BetaTcvae(NUM_IMAGES, 6.0)
    loss, terms = jax.jit(lambda params: loss_of(objective, MODEL, params, IMAGES, KEY, STEP))(parameters())
    mean, stddev, z = drawn()
    mutual_information, total_correlation, rest = by_loops(mean, stddev, z, NUM_IMAGES)
    expected = mutual_information + 6.0 * total_correlation + rest - np.mean(terms.reconstruction)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    # What is reported is the bound with the divergence in closed form.
    np.testing.assert_allclose(terms.kl, 0.5 * np.sum(mean**2 + stddev**2 - 1 - 2 * np.log(stddev), 1), rtol=1e-4)
    np.testing.assert_allclose(terms.elbo, terms.reconstruction - terms.kl, rtol=1e-5)
