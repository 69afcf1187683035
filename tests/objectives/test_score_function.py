"""The score-function gradient against the reparameterized one, and against a closed form."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from losses import assert_same_mean, binary_images, gradients, scattered

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.objectives import Beta, Elbo, score_function_term

SHAPE = (2, 2, 1)
BATCH = 4
IMAGES = binary_images(BATCH, SHAPE)
BINARY = build_model(ModelConfig(network="mlp(hidden=(3,), activation=tanh)", latents=2), SHAPE)
# A mixture has no closed-form divergence, and learns from the latents that q draws.
MIXTURE = build_model(
    ModelConfig(network="mlp(hidden=(3,), activation=tanh)", prior="mixture(components=2)", latents=2), SHAPE
)
STDDEV = 0.8
LINEAR = build_model(ModelConfig(network="mlp(hidden=())", likelihood=f"gaussian(stddev={STDDEV})", latents=2), SHAPE)


def many(model, objective: Elbo, num_keys: int, seed: int = 0) -> np.ndarray:
    """Gradients `[keys, parameters]`."""
    keys = jax.random.split(jax.random.key(seed), num_keys)
    _, found = gradients(objective, model, scattered(model, SHAPE, 0.3), IMAGES, keys)
    return np.concatenate(list(found.values()), axis=1)


@functools.cache
def reparameterized(name: str, beta: float) -> np.ndarray:
    model = {"binary": BINARY, "mixture": MIXTURE}[name]
    return many(model, Beta(1, True, beta=beta), 20_000, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("analytic_kl", [True, False])
def test_both_estimators_have_one_expectation(analytic_kl: bool, num_samples: int) -> None:
    objective = Elbo(num_samples, analytic_kl, gradient="score_function")
    ours, others = many(BINARY, objective, 40_000), reparameterized("binary", 1.0)
    assert_same_mean(ours, others)
    # Why the trick matters: the general estimator is the noisier one, with the baseline and at L = 1.
    if num_samples == 1:
        assert ours.var(0).sum() > 2 * others.var(0).sum()


@pytest.mark.long
@pytest.mark.parametrize("name", ["binary", "mixture"])
def test_a_weighted_divergence_is_weighted_in_the_learning_signal_too(name: str) -> None:
    model = {"binary": BINARY, "mixture": MIXTURE}[name]
    objective = Beta(2, analytic_kl=False, beta=5.0, gradient="score_function")
    assert_same_mean(many(model, objective, 40_000), reparameterized(name, 5.0))


@pytest.mark.long
@pytest.mark.parametrize("analytic_kl", [True, False])
def test_expectation_is_the_gradient_of_the_closed_form(analytic_kl: bool) -> None:
    def bound(params: dict) -> jax.Array:
        """E_q[log p(x|z)] - KL of a linear-Gaussian model, without its constants."""
        x = IMAGES.reshape(BATCH, -1)
        heads, decoder = params["posterior"], params["decoder"]["Dense_0"]
        mean, logvar = (x @ heads[name]["kernel"] + heads[name]["bias"] for name in ("mean", "logvar"))
        residual = x - mean @ decoder["kernel"] - decoder["bias"]
        spread = jnp.sum(jnp.exp(logvar) * jnp.sum(decoder["kernel"] ** 2, axis=1), axis=1)
        reconstruction = -0.5 * (jnp.sum(residual**2, axis=1) + spread) / STDDEV**2
        return jnp.mean(reconstruction - 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - logvar - 1.0, axis=1))

    expected = -jax.flatten_util.ravel_pytree(jax.grad(bound)(scattered(LINEAR, SHAPE, 0.3)))[0]
    ours = many(LINEAR, Elbo(4, analytic_kl, gradient="score_function"), 40_000)
    assert_same_mean(ours, np.asarray(expected, np.float64)[np.newaxis])


def test_baseline_is_the_mean_of_the_others() -> None:
    signal = np.array([[1.0, 4.0, -2.0], [0.5, 3.0, 7.0]])
    log_posterior = np.random.default_rng(2).normal(size=(2, 3))
    value, slope = jax.value_and_grad(lambda log_q: score_function_term(jnp.asarray(signal), log_q))(
        jnp.asarray(log_posterior)
    )
    by_hand = np.empty((2, 3))
    for index in np.ndindex(2, 3):
        by_hand[index] = signal[index] - np.mean([signal[other] for other in np.ndindex(2, 3) if other != index])
    assert float(value) == 0.0
    np.testing.assert_allclose(slope, by_hand / 6, rtol=1e-6)
    # A single sample has no others, and so no baseline.
    alone = jax.grad(lambda log_q: score_function_term(jnp.full((1, 1), 3.0), log_q))(jnp.zeros((1, 1)))
    assert float(alone[0, 0]) == 3.0
