"""What the KL costs, by hand: weights and their annealing, free bits, capacity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses import loss_of

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import init_variables
from vae_jax.objectives import Beta, Capacity, Elbo, FreeBits, cyclical_ramp, linear_ramp

SHAPE = (2, 2, 1)
MODEL = build_model(ModelConfig(network="mlp(hidden=(3,))", latents=2), SHAPE)
MIXTURE = build_model(ModelConfig(network="mlp(hidden=(3,))", prior="mixture(components=2)", latents=2), SHAPE)
# Two images, three latent dimensions: means 0.3, 1.0 and 2.5, in all 3.8 nats.
KL = jnp.array([[0.2, 0.5, 3.0], [0.4, 1.5, 2.0]])
START = jnp.int32(0)


def images() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 2, (5, *SHAPE)), jnp.float32)


@functools.cache
def fresh(model) -> dict:
    return init_variables(model, jax.random.key(0), SHAPE)["params"]


def surrogate_and_terms(objective: Elbo, model=MODEL, step: int = 0):
    return jax.jit(lambda params: loss_of(objective, model, params, images(), jax.random.key(1), jnp.int32(step)))(
        fresh(model)
    )


@pytest.mark.parametrize(("beta", "expected"), [(1.0, 3.8), (4.0, 15.2), (0.0, 0.0)])
def test_weight_multiplies_the_divergence(beta: float, expected: float) -> None:
    np.testing.assert_allclose(Beta(beta=beta).penalty(KL, START), expected, rtol=1e-6)


def test_linear_annealing_at_its_steps() -> None:
    penalty = Beta(beta=2.0, annealing="linear", steps=8).penalty
    found = [float(penalty(KL, jnp.int32(step))) for step in (0, 1, 4, 8, 9, 1000)]
    np.testing.assert_allclose(found, [0.0, 0.95, 3.8, 7.6, 7.6, 7.6], rtol=1e-6)


def test_cyclical_annealing_at_its_steps() -> None:
    penalty = Beta(beta=2.0, annealing="cyclical", steps=8).penalty
    # Rises over the first four steps of each cycle of eight, stays, falls to nothing, begins again.
    steps = (0, 1, 3, 4, 7, 8, 9, 12, 15, 16)
    found = [float(penalty(KL, jnp.int32(step))) for step in steps]
    np.testing.assert_allclose(found, np.array([0, 1, 3, 4, 4, 0, 1, 4, 4, 0]) / 4 * 7.6, rtol=1e-6)


def test_ramps_alone() -> None:
    np.testing.assert_allclose(
        [linear_ramp(jnp.int32(step), 3) for step in range(5)], [0, 1 / 3, 2 / 3, 1, 1], rtol=1e-6
    )
    # No steps to rise over: there at once.
    assert float(linear_ramp(START, 0)) == 1.0
    early = [cyclical_ramp(jnp.int32(step), 10, rising_share=0.2) for step in range(12)]
    np.testing.assert_allclose(early, [0, 0.5, *[1] * 8, 0, 0.5])


@pytest.mark.parametrize(
    ("free_nats", "expected"), [(0.0, 3.8), (0.5, 0.5 + 1.0 + 2.5), (1.2, 1.2 + 1.2 + 2.5), (10.0, 30.0)]
)
def test_free_bits_are_given_per_dimension_after_the_mean_over_images(free_nats: float, expected: float) -> None:
    np.testing.assert_allclose(FreeBits(nats=free_nats, num_latents=3).penalty(KL, START), expected, rtol=1e-6)


def test_free_bits_have_no_gradient_below_and_all_of_it_above() -> None:
    # The first image alone is above 1.2 in no dimension but the third; what counts is the mean.
    slope = jax.grad(FreeBits(nats=0.7, num_latents=3).penalty)(KL, START)
    np.testing.assert_allclose(slope, [[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])


def test_free_bits_of_an_undivided_divergence_are_those_of_all_dimensions() -> None:
    whole = jnp.sum(KL, axis=1, keepdims=True)
    np.testing.assert_allclose(FreeBits(nats=0.5, num_latents=3).penalty(whole, START), 3.8, rtol=1e-6)
    np.testing.assert_allclose(FreeBits(nats=2.0, num_latents=3).penalty(whole, START), 6.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "expected"),
    # The capacity is 0, 1, 3.8 (reached), 6, and stays there: |3.8 - C| times 10.
    [(0, 38.0), (10, 28.0), (38, 0.0), (60, 22.0), (500, 22.0)],
)
def test_capacity_rises_and_pulls_from_both_sides(step: int, expected: float) -> None:
    penalty = Capacity(nats=6.0, weight=10.0, steps=60).penalty
    np.testing.assert_allclose(penalty(KL, jnp.int32(step)), expected, rtol=1e-5, atol=1e-5)


def test_capacity_pulls_up_below_and_down_above() -> None:
    penalty = Capacity(nats=6.0, weight=10.0, steps=60).penalty
    np.testing.assert_allclose(jax.grad(penalty)(KL, START), np.full((2, 3), 5.0))
    np.testing.assert_allclose(jax.grad(penalty)(KL, jnp.int32(60)), np.full((2, 3), -5.0))


def test_beta_one_is_the_elbo() -> None:
    surrogate, terms = surrogate_and_terms(Beta(2, annealing="linear"))
    np.testing.assert_allclose(surrogate, -np.mean(terms.elbo), rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("model", [MODEL, MIXTURE], ids=["closed_form", "monte_carlo"])
@pytest.mark.parametrize(
    ("objective", "by_hand"),
    [
        (Beta(2, beta=4.0), lambda kl: 4.0 * kl.mean()),
        (Beta(2, beta=4.0, annealing="linear", steps=10), lambda kl: 4.0 * 0.3 * kl.mean()),
        (Capacity(2, nats=2.0, weight=5.0, steps=6), lambda kl: 5.0 * abs(kl.mean() - 1.0)),
        (FreeBits(2, nats=7.0, num_latents=2), lambda kl: 14.0),
    ],
    ids=["beta", "annealed", "capacity", "free_bits"],
)
def test_what_is_optimized_is_penalized_and_what_is_reported_is_not(model, objective: Elbo, by_hand) -> None:
    surrogate, terms = surrogate_and_terms(objective, model, step=3)
    kl = np.asarray(terms.kl, np.float64)
    np.testing.assert_allclose(surrogate, by_hand(kl) - np.mean(terms.reconstruction), rtol=1e-5)
    np.testing.assert_allclose(terms.elbo, terms.reconstruction - terms.kl, rtol=1e-5)


def test_objective_gives_free_bits_to_each_latent_dimension() -> None:
    # One dimension far from the prior, one close to it: freeing their sum would cost something else.
    nothing = jnp.zeros((3, 2))
    heads = {
        "mean": {"kernel": nothing, "bias": jnp.array([3.0, 0.1])},
        "logvar": {"kernel": nothing, "bias": jnp.zeros(2)},
    }
    objective = FreeBits(nats=1.0, num_latents=2)
    surrogate, terms = jax.jit(lambda params: loss_of(objective, MODEL, params, images(), jax.random.key(1), START))(
        {**fresh(MODEL), "posterior": heads}
    )
    np.testing.assert_allclose(terms.kl, np.full(5, 0.5 * (9.0 + 0.01)), rtol=1e-5)
    np.testing.assert_allclose(surrogate + np.mean(terms.reconstruction), 4.5 + 1.0, rtol=1e-5)
