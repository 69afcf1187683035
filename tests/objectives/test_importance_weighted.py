"""The importance-weighted bound against log-sum-exp and a linear-Gaussian log p(x), and its two gradients."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from losses import assert_same_mean, gradients, loss_of

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import Batch
from vae_jax.noise import standard_normal
from vae_jax.objectives import Dreg, Iwae, importance_weighted_bound

SHAPE = (2, 2, 1)
STDDEV = 0.5
LATENTS = 2
STEP = jnp.int32(0)
# p(x|z) = N(W z + b, STDDEV^2 I) with q(z|x) = N(A x + a, diag(exp(logvar))): probabilistic PCA.
MODEL = build_model(
    ModelConfig(network="mlp(hidden=())", likelihood=f"gaussian(stddev={STDDEV})", latents=LATENTS), SHAPE
)
WEIGHTS = np.array([[0.8, -0.3], [0.4, 0.5], [-0.2, 0.9], [0.6, 0.1]])
BIAS = np.array([0.1, 0.5, 0.3, -0.2])
PRECISION = np.eye(LATENTS) + WEIGHTS.T @ WEIGHTS / STDDEV**2
X = np.random.default_rng(0).normal(0.3, 0.8, size=(3, 4))
COVARIANCE = WEIGHTS @ WEIGHTS.T + STDDEV**2 * np.eye(4)
LOG_LIKELIHOOD = scipy.stats.multivariate_normal(BIAS, COVARIANCE).logpdf(X)


def parameters(distance: float) -> dict:
    """Fixed decoder; the encoder is the best diagonal one, displaced by some distance."""
    rng = np.random.default_rng(1)
    matrix = np.linalg.solve(PRECISION, WEIGHTS.T) / STDDEV**2
    tree = {
        "posterior": {
            "mean": {"kernel": matrix.T, "bias": -matrix @ BIAS},
            "logvar": {"kernel": np.zeros((4, LATENTS)), "bias": -np.log(np.diag(PRECISION))},
        },
        "decoder": {"Dense_0": {"kernel": WEIGHTS.T, "bias": BIAS}},
    }
    tree["posterior"] = jax.tree.map(lambda leaf: leaf + distance * rng.normal(size=leaf.shape), tree["posterior"])
    return jax.tree.map(jnp.asarray, tree)


def images() -> jax.Array:
    return jnp.asarray(X).reshape(3, *SHAPE)


def log_weights(num_samples: int, distance: float = 0.2) -> np.ndarray:
    """`[K, B]` from NumPy's noise, by the model."""
    noise = np.random.default_rng(2).normal(size=(num_samples, 3, LATENTS))
    variables = {"params": parameters(distance)}
    weigh = jax.jit(lambda noise: MODEL.joint(variables, Batch(images()), noise=noise).log_weights)
    return np.asarray(weigh(jnp.asarray(noise)))


def test_bound_is_the_log_of_the_mean_of_the_weights() -> None:
    values = np.random.default_rng(3).normal(-90.0, 30.0, size=(7, 5))
    bound = importance_weighted_bound(jnp.asarray(values))
    np.testing.assert_allclose(bound, scipy.special.logsumexp(values, axis=0) - np.log(7), rtol=1e-6)
    # A weight of zero counts as one of the K; weights that no float could hold do no harm.
    extreme = importance_weighted_bound(jnp.array([[-1e5, 3.0], [-1e5, -np.inf]]))
    np.testing.assert_allclose(extreme, [-1e5, 3.0 - np.log(2)], rtol=1e-6)


def test_bound_rises_with_the_number_of_samples_toward_the_log_likelihood() -> None:
    with jax.enable_x64(True):
        drawn = log_weights(65536, distance=0.5).reshape(65536, 3)
    sizes = [1, 2, 8, 64, 1024]
    # All groupings are of the same weights: each bound is the mean of the bounds of its subsets, so that by
    # Jensen's inequality the order holds exactly, not just in expectation.
    bounds = [
        np.mean(scipy.special.logsumexp(drawn.reshape(-1, size, 3), axis=1) - np.log(size), axis=0) for size in sizes
    ]
    ours = jax.vmap(importance_weighted_bound)(jnp.asarray(drawn.reshape(-1, 64, 3)))
    np.testing.assert_allclose(np.mean(ours, axis=0), bounds[3], rtol=1e-5)
    assert np.all(np.diff(bounds, axis=0) > 0)
    gaps = LOG_LIKELIHOOD - np.array(bounds)
    assert np.all(gaps[:4] > 0)
    assert np.all(gaps[0] > 0.1)
    # The gap falls as Var(w) / (2 K), so of 1,024 samples next to nothing is left.
    assert np.all(np.abs(gaps[-1]) < 0.02)


@functools.cache
def many(objective: type, num_samples: int, distance: float, num_keys: int) -> dict[str, np.ndarray]:
    """The gradient for independent keys, `[keys, parameters]`, of the posterior and the decoder."""
    # The two objectives get keys of their own, or their errors would not be independent.
    keys = jax.random.split(jax.random.key(100 * (objective is Dreg) + num_samples), num_keys)
    return gradients(objective(num_samples), MODEL, parameters(distance), images(), keys)[1]


@pytest.mark.long
@pytest.mark.parametrize("part", ["posterior", "decoder"])
@pytest.mark.parametrize("num_samples", [1, 5])
def test_both_gradients_have_one_expectation(num_samples: int, part: str) -> None:
    assert_same_mean(*(many(objective, num_samples, 0.3, 20_000)[part] for objective in (Iwae, Dreg)))


def test_encoder_gradient_is_equation_7_written_out_in_numpy() -> None:
    with jax.enable_x64(True):
        params, key, num_samples = parameters(0.3), jax.random.key(7), 5
        gradient = jax.jit(jax.grad(lambda p: loss_of(Dreg(num_samples), MODEL, p, images(), key, STEP)[0]))(params)
        noise = np.asarray(standard_normal(key, (num_samples, 3, LATENTS)))
    head, found = jax.tree.map(np.asarray, (params["posterior"], gradient["posterior"]))
    mean = X @ head["mean"]["kernel"] + head["mean"]["bias"]
    stddev = np.exp(0.5 * (X @ head["logvar"]["kernel"] + head["logvar"]["bias"]))
    z = mean + stddev * noise
    residual = X - z @ WEIGHTS.T - BIAS
    log_weights = scipy.stats.norm.logpdf(residual, scale=STDDEV).sum(-1) + scipy.stats.norm.logpdf(z).sum(-1)
    log_weights -= scipy.stats.norm.logpdf(z, mean, stddev).sum(-1)
    share = scipy.special.softmax(log_weights, axis=0)[..., None]
    slope = residual @ WEIGHTS / STDDEV**2 - z + (z - mean) / stddev**2
    per_mean = -np.sum(share**2 * slope, axis=0) / 3
    per_logvar = -np.sum(share**2 * slope * 0.5 * stddev * noise, axis=0) / 3
    np.testing.assert_allclose(found["mean"]["kernel"], X.T @ per_mean, rtol=1e-9)
    np.testing.assert_allclose(found["mean"]["bias"], per_mean.sum(0), rtol=1e-9)
    np.testing.assert_allclose(found["logvar"]["kernel"], X.T @ per_logvar, rtol=1e-9)
    np.testing.assert_allclose(found["logvar"]["bias"], per_logvar.sum(0), rtol=1e-9)


@pytest.mark.long
def test_doubly_reparameterized_gradient_varies_less_near_the_optimum() -> None:
    ours, others = (many(objective, 64, 0.05, 2_000)["posterior"] for objective in (Dreg, Iwae))
    # Variances of 2,000 values have a relative error of some 3%: neither parameter by parameter nor in sum is
    # a factor of 2 a matter of chance.
    assert np.all(2 * ours.var(0) < others.var(0))
    assert 5 * ours.var(0).sum() < others.var(0).sum()
