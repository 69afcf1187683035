"""FactorVAE: its estimate of a total correlation that is known, who learns from what, and its losses by hand."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import build
from vae_jax.build import build_model
from vae_jax.config import Config, ModelConfig, TrainConfig
from vae_jax.models import VAE, Batch, Joint, init_variables
from vae_jax.objectives import FactorVae
from vae_jax.objectives.factor_vae import Discriminator, shuffled
from vae_jax.training import Adam, create_state, make_train_step, with_players, with_their_optimizers

SHAPE = (2, 2, 1)
TOTAL_CORRELATION = 0.5
# Two standard normal dimensions with correlation r have a total correlation of -1/2 log(1 - r^2).
CORRELATION = math.sqrt(1.0 - math.exp(-2.0 * TOTAL_CORRELATION))


class Correlated(VAE):
    """A model whose codes are Gaussian with a known total correlation, whatever x is."""

    def joint(self, variables, batch, q=None, *, noise=None, z=None, train=False):
        first, second = noise[..., 0], noise[..., 1]
        z = jnp.stack([first, CORRELATION * first + math.sqrt(1.0 - CORRELATION**2) * second], axis=-1)
        nothing = jnp.zeros(z.shape[:-1])
        return Joint(z, nothing, nothing, nothing, None, None)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_estimate_of_a_known_total_correlation(seed: int) -> None:
    parts = build_model(ModelConfig(latents=2), SHAPE)
    model = Correlated(**{field.name: getattr(parts, field.name) for field in dataclasses.fields(parts)})
    objective = FactorVae(hidden=(64, 64), rate=3e-4)
    players, key = objective.players(model), jax.random.key(seed)
    tx = with_their_optimizers(Adam()(1e-3), players)
    state = create_state(with_players({"params": {}}, players, key), tx, with_average=False)
    step = make_train_step(functools.partial(objective, model), tx, lambda stored, given, key: Batch(stored))

    @jax.jit
    def train(state):
        return jax.lax.scan(lambda state, _: (step(state, jnp.zeros((1000, *SHAPE)), key)[0], None), state, None, 3000)[
            0
        ]

    params = train(state).params
    noise = jax.random.normal(jax.random.key(seed + 100), (1, 50_000, 2))
    z = model.joint({}, None, noise=noise).z[0]
    logits = Discriminator((64, 64)).apply({"params": params["players"]["discriminator"]}, z)
    assert np.mean(logits) == pytest.approx(TOTAL_CORRELATION, rel=0.1)


@pytest.fixture(scope="module")
def small():
    """Model, objective, variables with both players, and a batch."""
    model = build_model(ModelConfig(network="mlp(hidden=(3,))", latents=2), SHAPE)
    objective = FactorVae(gamma=3.0, hidden=(5,), start=4)
    variables = init_variables(model, jax.random.key(0), SHAPE)
    variables = with_players(variables, objective.players(model), jax.random.key(0))
    x = np.random.default_rng(0).integers(0, 2, (8, *SHAPE))
    return model, objective, variables, Batch(jnp.asarray(x, jnp.float32))


def test_each_player_learns_from_its_own_loss_alone(small) -> None:
    model, objective, variables, batch = small

    def losses(params):
        return objective(model, {"params": params}, batch, jax.random.key(1), jnp.int32(10)).players

    by_player = jax.jit(jax.jacrev(losses))(variables["params"])
    of_model, of_other = by_player["model"], by_player["discriminator"]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_model["players"]))
    assert any(np.any(leaf) for leaf in jax.tree.leaves(of_other.pop("players")))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_other))
    assert np.any(jax.tree.leaves(of_model["encoder"])[0])


@pytest.mark.long
def test_losses_by_hand(small) -> None:
    model, objective, variables, batch = small
    loss_at = jax.jit(lambda step: objective(model, variables, batch, jax.random.key(1), step))
    loss = loss_at(jnp.int32(10))
    found = loss.players["model"] + np.mean(loss.terms.elbo)
    assert found == pytest.approx(3.0 * float(loss.metrics["total_correlation"]), rel=1e-4, abs=1e-6)
    before = loss_at(jnp.int32(3))
    assert before.players["model"] == pytest.approx(-float(np.mean(loss.terms.elbo)), rel=1e-6)
    params = variables["params"]["players"]["discriminator"]
    codes = jnp.asarray(np.random.default_rng(2).normal(size=(6, 2)), jnp.float32)
    key = jax.random.key(3)

    def probability(z):
        return 1.0 / (1.0 + np.exp(-np.asarray(Discriminator((5,)).apply({"params": params}, z), np.float64)))

    real, fake = probability(codes[:3]), probability(shuffled(codes[3:], key))
    by_hand = -0.5 * (np.mean(np.log(real)) + np.mean(np.log(1.0 - fake)))
    assert objective.cross_entropy(params, codes, key) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.long
def test_discriminator_takes_a_step_at_every_so_many(small) -> None:
    (model, _, variables, batch), every = small, 3
    objective = FactorVae(hidden=(5,), every=every)
    tx = with_their_optimizers(Adam()(1e-3), objective.players(model))
    state = create_state(variables, tx, with_average=False)
    step = make_train_step(functools.partial(objective, model), tx, lambda stored, given, key: Batch(stored))
    moved = []
    for _ in range(6):
        after, metrics = step(state, batch.x, jax.random.key(0))
        weights = [s.params["players"]["discriminator"]["Dense_0"]["kernel"] for s in (state, after)]
        moved.append(not np.array_equal(*weights))
        biases = [s.params["encoder"]["Dense_0"]["bias"] for s in (state, after)]
        assert not np.array_equal(*biases)
        state = after
    assert moved == [number % every == 0 for number in range(6)]
    assert {"loss", "loss_discriminator", "total_correlation", "elbo"} <= set(metrics)


def test_clipping_is_for_each_player_by_itself(small) -> None:
    model, _, variables, _ = small
    train = TrainConfig(optimizer="sgd", learning_rate=1.0, clip_norm=1.0)
    tx = build.build_optimizer(Config(objective="factor_vae(hidden=(5,), rate=0.0)", train=train), model, 10)
    params = variables["params"]
    # The other player's enormous gradient must not shrink that of the model.
    gradient = jax.tree.map(jnp.zeros_like, params)
    gradient["encoder"]["Dense_0"]["bias"] = jnp.array([0.3, 0.0, 0.4])
    gradient["players"] = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1e6), params["players"])
    updates, _ = jax.jit(tx.update)(gradient, tx.init(params), params)
    np.testing.assert_allclose(updates["encoder"]["Dense_0"]["bias"], [-0.3, 0.0, -0.4], rtol=1e-5)
