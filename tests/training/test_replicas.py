"""Replicas that train at once are the runs that each seed gives alone, and parts of a batch add up to the whole."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.datasets

from vae_jax import build
from vae_jax.config import Config, ModelConfig, TrainConfig
from vae_jax.data import Dataset
from vae_jax.errors import UserError
from vae_jax.keys import Stream, stream_key
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


def assert_close(ours, theirs, tolerance: float) -> None:
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)


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


def test_replicas_differ_in_parameters_noise_and_order() -> None:
    state, metrics = trained(dataclasses.replace(CONFIG, num_seeds=3))
    kernels = state.params["decoder"]["Dense_0"]["kernel"]
    assert len({kernel.tobytes() for kernel in kernels}) == 3
    assert len(set(metrics["elbo"].tolist())) == 3
    order = build.build_steps(
        dataclasses.replace(CONFIG, num_seeds=2),
        build.build_model_for(CONFIG, data()),
        data(),
        build.build_schedule(CONFIG, 100),
        batch_mesh(16),
    )._order
    first, second = order.indices(np.arange(6)).swapaxes(0, 1)
    assert first.shape == (6, 16) and np.any(first != second)


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


@pytest.mark.manual
def test_gradient_of_parts_is_the_mean_of_their_gradients() -> None:
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, accumulation=4, optimizer="sgd"))
    model = build.build_model_for(config, data())
    state = build.build_state(config, model, SHAPE, 6)
    prepare = build.build_preparation(data())
    step = build.build_train_step(config, model, build.build_schedule(config, 100), prepare, 100)
    images, key = jnp.asarray(data().training.images[:16]), jax.random.key(5)
    after, _ = step(state, images, key)
    loss = build.build_loss(config, model)
    x = prepare(images, None, stream_key(key, Stream.BINARIZATION, 0)).x
    noise_key = stream_key(key, Stream.POSTERIOR_NOISE, 0)

    def loss_of(params, x, key):
        return loss({"params": params}, Batch(x), key, jnp.int32(0)).players["model"]

    parts = [
        jax.grad(lambda params, part=part: loss_of(params, x[part::4], jax.random.fold_in(noise_key, part)))(
            state.params
        )
        for part in range(4)
    ]
    mean = jax.tree.map(lambda *gradients: sum(gradients) / 4, *parts)
    rate = config.train.learning_rate
    expected = jax.tree.map(lambda old, gradient: old - rate * gradient, state.params, mean)
    assert_close(after.params, expected, 1e-6)


@pytest.mark.manual
def test_parts_need_less_memory_and_stay_on_their_devices() -> None:
    config = dataclasses.replace(
        CONFIG,
        model=ModelConfig(network="mlp(hidden=(64,))"),
        objective="iwae(num_samples=64)",
        train=TrainConfig(batch_size=64, num_steps=6),
    )
    parted = dataclasses.replace(config, train=dataclasses.replace(config.train, accumulation=8))

    def compiled(config: Config, devices: int) -> jax.stages.Compiled:
        model = build.build_model_for(config, data())
        mesh = batch_mesh(64, jax.devices()[:devices])
        steps = build.build_steps(config, model, data(), build.build_schedule(config, 100), mesh)
        return steps.compile(jax.eval_shape(lambda: build.build_state(config, model, SHAPE, 6)))

    # Activations of 64 samples of 64 images, against those of 8 images.
    with_all, with_parts = (compiled(each, 1).memory_analysis() for each in (config, parted))
    assert with_parts.temp_size_in_bytes < with_all.temp_size_in_bytes
    text = compiled(parted, 8).as_text()
    assert "all-reduce" in text and "all-to-all" not in text and "f32[64,64,64]" not in text


@pytest.mark.parametrize(
    ("objective", "reason"),
    [
        ("mmd", "looks at the whole batch"),
        ("beta_tcvae", "looks at the whole batch"),
        ("free_bits", "looks at the whole batch"),
        ("capacity", "looks at the whole batch"),
    ],
)
def test_objectives_over_the_batch_refuse_parts(objective: str, reason: str) -> None:
    train = dataclasses.replace(CONFIG.train, accumulation=2)
    with pytest.raises(UserError, match=reason):
        build.check_fit(dataclasses.replace(CONFIG, objective=objective, train=train), data())


def test_parts_have_to_divide_the_batch() -> None:
    train = dataclasses.replace(CONFIG.train, accumulation=3)
    with pytest.raises(UserError, match=r"train.accumulation is 3 .* 16"):
        build.check_fit(dataclasses.replace(CONFIG, train=train), data())


def test_last_seed_has_to_be_one() -> None:
    with pytest.raises(UserError, match="num_seeds"):
        build.check_fit(dataclasses.replace(CONFIG, seed=2**32 - 2, num_seeds=3), data())
