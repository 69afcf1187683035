"""Importance sampling: its sums against NumPy in float64, its padding, its memory and its keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from linear_gaussian import LinearGaussian

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.evaluation import make_importance_estimate, samples_at_once
from vae_jax.models import VAE, Batch, init_variables
from vae_jax.noise import normal_per_image

SHAPE = (4, 4, 1)
KEY = jax.random.key(2)
IDS = jnp.arange(6)


def small_model() -> VAE:
    return build_model(ModelConfig(network="mlp(hidden=(8,))", latents=3), SHAPE)


def parameters():
    params = init_variables(small_model(), jax.random.key(0), SHAPE)
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * jnp.cos(jnp.arange(leaf.size, dtype=jnp.float32)).reshape(leaf.shape), params
    )


def images() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 2, (6, *SHAPE)), jnp.float32)


def log_weights(num_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All weights at once, the reconstruction terms and the KL; in float64."""
    noise = normal_per_image(KEY, IDS, jnp.arange(num_samples), 3)
    joint = small_model().joint(parameters(), Batch(images()), noise=noise)
    return tuple(np.asarray(part, np.float64) for part in (joint.log_weights, joint.log_likelihood, joint.kl.sum(-1)))


@pytest.mark.long
@pytest.mark.parametrize("chunk", [1, 4, 20, 64])
def test_every_number_is_that_of_numpy_on_all_weights(chunk: int) -> None:
    # 20 samples in chunks of 64 or in chunks of 4: the padding of a last chunk counts for nothing.
    weights, reconstruction, kl = log_weights(20)
    estimate = make_importance_estimate(small_model(), 20, chunk)(parameters(), Batch(images()), IDS, KEY)
    relative = np.exp(weights - weights.max(0))
    expected = {
        "log_likelihood": scipy.special.logsumexp(weights, axis=0) - np.log(20),
        "log_likelihood_variance": relative.var(0, ddof=1) / 20 / relative.mean(0) ** 2,
        "effective_sample_size": relative.sum(0) ** 2 / (relative**2).sum(0),
        "elbo": reconstruction.mean(0) - kl,
        "elbo_variance": reconstruction.var(0, ddof=1) / 20,
        "reconstruction": reconstruction.mean(0),
        "kl": kl,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(estimate, name), value, rtol=2e-4, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("shape", "latents"), [((4, 4, 1), 2), ((5, 6, 2), 5), ((8, 8, 3), 8)])
def test_intervals_cover_the_exact_log_likelihood(shape: tuple[int, int, int], latents: int, double: bool) -> None:
    # 400 images are 400 seeds.
    with jax.enable_x64(double):
        truth = LinearGaussian.draw(shape, latents)
        x = jnp.asarray(truth.sample(400), jnp.float64 if double else jnp.float32)
        function = make_importance_estimate(truth.vae(), 1000, 50)
        estimate = jax.device_get(function(truth.variables(shift=0.1), Batch(x), jnp.arange(400), KEY))
        assert estimate.log_likelihood.dtype == x.dtype
    assert estimate.effective_sample_size.min() > 100
    error = np.asarray(estimate.log_likelihood, np.float64) - truth.log_likelihood(np.asarray(x, np.float64))
    scores = error / np.sqrt(estimate.log_likelihood_variance)
    assert 0.95 - 0.044 < np.mean(np.abs(scores) < 1.96) < 0.95 + 0.044  # four standard errors of a share of 400
    assert abs(scores.mean()) < 4 / np.sqrt(400)


@pytest.mark.long
@pytest.mark.parametrize(
    ("hidden", "latents", "shape", "batch", "memory_mb"),
    [((200,), 10, (8, 8, 1), 100, 16), ((400,), 20, (28, 28, 1), 100, 64), ((64, 32), 5, (16, 16, 3), 20, 32)],
)
def test_compiled_program_stays_within_its_memory(
    hidden: tuple[int, ...], latents: int, shape: tuple[int, int, int], batch: int, memory_mb: int
) -> None:
    model = build_model(ModelConfig(network=f"mlp(hidden={hidden})", latents=latents), shape)
    chunk = samples_at_once(model, shape, batch, memory_mb)
    assert chunk > 1
    params = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), shape))
    x, ids = jax.ShapeDtypeStruct((batch, *shape), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    function = make_importance_estimate(model, 50 * chunk, chunk)
    analysis = function.lower(params, Batch(x), ids, jax.random.key(0)).compile().memory_analysis()
    assert analysis.temp_size_in_bytes <= memory_mb * 2**20
    # The bound is not met by wasting the room either.
    assert analysis.temp_size_in_bytes > memory_mb * 2**20 / 20
