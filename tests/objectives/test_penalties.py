"""What the KL costs, by hand: weights and their annealing, free bits, capacity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses import binary_images, loss_of

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import init_variables
from vae_jax.objectives import Beta, Capacity, Elbo, FreeBits

SHAPE = (2, 2, 1)
IMAGES = binary_images(5, SHAPE)
MODEL = build_model(ModelConfig(network="mlp(hidden=(3,))", latents=2), SHAPE)
MIXTURE = build_model(ModelConfig(network="mlp(hidden=(3,))", prior="mixture(components=2)", latents=2), SHAPE)
# Two images, three latent dimensions: means 0.3, 1.0 and 2.5, in all 3.8 nats.
KL = jnp.array([[0.2, 0.5, 3.0], [0.4, 1.5, 2.0]])
START = jnp.int32(0)


@functools.cache
def fresh(model) -> dict:
    return init_variables(model, jax.random.key(0), SHAPE)["params"]


def surrogate_and_terms(objective: Elbo, model=MODEL, step: int = 0):
    return jax.jit(lambda params: loss_of(objective, model, params, IMAGES, jax.random.key(1), jnp.int32(step)))(
        fresh(model)
    )


PENALTIES = {
    "weight": (Beta(beta=4.0), {0: 15.2, 9: 15.2}),
    "linear": (Beta(beta=2.0, annealing="linear", steps=8), {0: 0.0, 1: 0.95, 4: 3.8, 8: 7.6, 1000: 7.6}),
    # Rises over the first four steps of each cycle of eight, stays, falls to nothing, begins again.
    "cyclical": (
        Beta(beta=2.0, annealing="cyclical", steps=8),
        {0: 0.0, 1: 1.9, 3: 5.7, 4: 7.6, 7: 7.6, 8: 0.0, 9: 1.9, 15: 7.6, 16: 0.0},
    ),
    "no free bits": (FreeBits(nats=0.0, num_latents=3), {0: 3.8}),
    "some free bits": (FreeBits(nats=0.5, num_latents=3), {0: 0.5 + 1.0 + 2.5}),
    "more free bits": (FreeBits(nats=1.2, num_latents=3), {0: 1.2 + 1.2 + 2.5}),
    # The capacity is 0, 1, 3.8 (reached), 6, and stays there: |3.8 - C| times 10.
    "capacity": (Capacity(nats=6.0, weight=10.0, steps=60), {0: 38.0, 10: 28.0, 38: 0.0, 60: 22.0, 500: 22.0}),
}


@pytest.mark.parametrize(("objective", "by_step"), PENALTIES.values(), ids=PENALTIES)
def test_penalty_of_a_divergence_at_its_steps(objective, by_step: dict[int, float]) -> None:
    for step, expected in by_step.items():
        np.testing.assert_allclose(objective.penalty(KL, jnp.int32(step)), expected, rtol=1e-5, atol=1e-5)


def test_free_bits_of_an_undivided_divergence_are_those_of_all_dimensions() -> None:
    whole = jnp.sum(KL, axis=1, keepdims=True)
    np.testing.assert_allclose(FreeBits(nats=0.5, num_latents=3).penalty(whole, START), 3.8, rtol=1e-6)
    np.testing.assert_allclose(FreeBits(nats=2.0, num_latents=3).penalty(whole, START), 6.0, rtol=1e-6)


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
    surrogate, terms = jax.jit(lambda params: loss_of(objective, MODEL, params, IMAGES, jax.random.key(1), START))(
        {**fresh(MODEL), "posterior": heads}
    )
    np.testing.assert_allclose(terms.kl, np.full(5, 0.5 * (9.0 + 0.01)), rtol=1e-5)
    np.testing.assert_allclose(surrogate + np.mean(terms.reconstruction), 4.5 + 1.0, rtol=1e-5)
