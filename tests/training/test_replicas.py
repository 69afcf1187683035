"""Replicas that train at once are the runs that each seed gives alone, and parts of a batch add up to the whole."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.datasets
from trees import assert_close

from vae_jax import build
from vae_jax.config import Config, ModelConfig, TrainConfig
from vae_jax.data import Dataset
from vae_jax.errors import UserError
from vae_jax.models import Batch
from vae_jax.objectives import ElboTerms, Loss
from vae_jax.sharding import batch_mesh, replicated
from vae_jax.training import TrainState, make_train_step, replica_of

SHAPE = (8, 8, 1)
CONFIG = Config(
    seed=5,
    model=ModelConfig(network="mlp(hidden=(8,))", latents=3),
    train=TrainConfig(batch_size=16, num_steps=6, checkpoint_every=6, ema_decay=0.9),
)


@functools.cache
def data() -> Dataset:
    digits = sklearn.datasets.load_digits()
    images, labels = digits.images[:100].astype(np.uint8)[..., np.newaxis], digits.target[:100].astype(np.int32)
    return Dataset("digits", images, images[:10], labels, labels[:10], 16, "", binarization="dynamic")


def trained(config: Config, num_devices: int = 1) -> tuple[TrainState, dict]:
    """The state after all steps, and the metrics of the last call."""
    model = build.build_model_for(config, data())
    schedule = build.build_schedule(config, 100)
    mesh = batch_mesh(config.train.batch_size, jax.devices()[:num_devices])
    steps = build.build_steps(config, model, data(), schedule, mesh)
    state = jax.jit(lambda: build.build_state(config, model, SHAPE, 6), out_shardings=replicated(mesh))()
    state, metrics = steps(state, 0, 6)
    return jax.device_get(state), jax.device_get(metrics[-1])


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "objective"),
    [
        (ModelConfig(network="mlp(hidden=(8,))", latents=3), "elbo"),
        (ModelConfig(network="mlp(hidden=(8,))", latents=3), "factor_vae(hidden=(8,), every=2)"),
        pytest.param(
            ModelConfig(network="conv(channels=(4,))", prior="mixture(components=4)", latents=3, conditional=True),
            "elbo",
            marks=pytest.mark.manual,
        ),
    ],
)
def test_each_replica_is_the_run_of_its_seed(model: ModelConfig, objective: str) -> None:
    config = dataclasses.replace(CONFIG, model=model, objective=objective)
    together, metrics = trained(dataclasses.replace(config, num_seeds=4))
    assert metrics["elbo"].shape == (4,)
    for index in range(4):
        alone, own_metrics = trained(dataclasses.replace(config, seed=5 + index))
        assert_close(replica_of(together, index), alone, 2e-5)
        np.testing.assert_allclose(metrics["elbo"][index], own_metrics["elbo"], rtol=1e-5)


@pytest.mark.long
def test_eight_devices_give_the_replicas_of_one() -> None:
    config = dataclasses.replace(CONFIG, num_seeds=3)
    one, metrics = trained(config, 1)
    eight, other_metrics = trained(config, 8)
    assert_close(eight, one, 2e-5)
    assert_close(other_metrics, metrics, 1e-4)


def test_parts_of_a_batch_add_up() -> None:
    # A loss without noise, whose gradient is the mean of 2 (p - x) over all images, whatever the parts.
    def loss(variables, batch, key, step):
        error = jnp.sum(jnp.square(variables["params"] - batch.x), axis=(1, 2, 3))
        return Loss({"model": jnp.mean(error)}, ElboTerms(error, error, error))

    images = data().training.images[:16]
    state = TrainState(jnp.int32(0), jnp.zeros(SHAPE), optax.sgd(0.5).init(jnp.zeros(SHAPE)), None)
    for num_parts in (1, 2, 8):
        step = make_train_step(loss, optax.sgd(0.5), lambda x, given, key: Batch(x / 16.0), num_parts=num_parts)
        after, metrics = step(state, jnp.asarray(images), jax.random.key(0))
        np.testing.assert_allclose(after.params, images.mean(axis=0) / 16.0, atol=1e-6)
        np.testing.assert_allclose(metrics["elbo"], np.sum((images / 16.0) ** 2, axis=(1, 2, 3)).mean(), rtol=1e-6)


REFUSED = {
    **{f"objective={name}": "looks at the whole batch" for name in ("mmd", "beta_tcvae", "free_bits", "capacity")},
    "accumulation=3": r"train.accumulation is 3 .* 16",
    "last seed": "num_seeds",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_divided_or_repeated_is_refused(what: str) -> None:
    config = CONFIG
    if what == "last seed":
        config = dataclasses.replace(config, seed=2**32 - 2, num_seeds=3)
    else:
        name, _, value = what.partition("=")
        parts = dataclasses.replace(config.train, accumulation=3 if name == "accumulation" else 2)
        config = dataclasses.replace(config, train=parts, objective=value if name == "objective" else "elbo")
    with pytest.raises(UserError, match=REFUSED[what]):
        build.check_fit(config, data())
