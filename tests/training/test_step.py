"""The training step: pure, compiled once, the same on one device and on eight, and right."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.datasets
from small_parts import small
from trees import assert_close, assert_same_bits

from vae_jax.build import build_model, must_unroll
from vae_jax.config import ModelConfig
from vae_jax.data.binarization import dynamic_binarization, scaled
from vae_jax.keys import Stream, stream_key
from vae_jax.models import VAE, Batch, init_variables
from vae_jax.noise import standard_normal
from vae_jax.objectives import Elbo, ElboTerms, Loss
from vae_jax.sharding import batch_mesh, replicated
from vae_jax.training import BatchOrder, ResidentSteps, TrainState, create_state, make_train_step

SHAPE = (8, 8, 1)
SEED = 3
KEY = jax.random.key(SEED)


def digits() -> np.ndarray:
    return sklearn.datasets.load_digits().images[:100].astype(np.uint8)[..., np.newaxis]


def small_model(hidden: tuple[int, ...] = (8,)) -> VAE:
    return build_model(ModelConfig(network=f"mlp(hidden={hidden})", latents=3), SHAPE)


def fresh(model: VAE, tx: optax.GradientTransformation, with_average: bool = False) -> TrainState:
    return create_state(init_variables(model, jax.random.key(0), SHAPE), tx, with_average)


def step_of(model: VAE, tx: optax.GradientTransformation, ema_decay: float = 0.0):
    loss = functools.partial(Elbo(), model)

    def prepare(images, given, key):
        return Batch(dynamic_binarization(images, 16, key), context=given)

    return make_train_step(loss, tx, prepare, ema_decay)


def test_each_step_has_binarization_and_noise_of_its_own() -> None:
    """The keys that the parts of a step get, as numbers: none is there twice."""
    tx, state = optax.sgd(0.0), create_state({"params": {"w": jnp.zeros(())}}, optax.sgd(0.0), False)

    def prepare(images, given, key):
        return Batch(jnp.zeros(images.shape) + jax.random.uniform(key))

    def loss(variables, batch, key, step):
        x = batch.x
        terms = ElboTerms(x[:, 0, 0, 0], jnp.full(len(x), jax.random.uniform(key)), jnp.zeros(len(x)))
        return Loss({"model": variables["params"]["w"]}, terms)

    train_step, batch, found = make_train_step(loss, tx, prepare), jnp.zeros((2, 1, 1, 1), jnp.uint8), []
    for _ in range(3):
        state, metrics = train_step(state, batch, KEY)
        found += [float(metrics["elbo"]), float(metrics["reconstruction"])]
    assert len(set(found)) == 6


def test_one_sgd_step_is_the_gradient_worked_out_by_hand() -> None:
    # A linear encoder and decoder, so that backpropagation is a few lines of NumPy in float64.
    model, rate = small_model(hidden=()), 0.1
    state = fresh(model, optax.sgd(rate))
    binary = (digits()[:10] > 7).astype(np.uint8)
    objective = Elbo()
    train_step = make_train_step(
        functools.partial(objective, model), optax.sgd(rate), lambda images, given, key: Batch(scaled(images, 1))
    )
    after, metrics = train_step(state, jnp.asarray(binary), KEY)

    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.params)
    mean_head, logvar_head = params["posterior"]["mean"], params["posterior"]["logvar"]
    decoder = params["decoder"]["Dense_0"]
    noise_key = stream_key(KEY, Stream.POSTERIOR_NOISE, 0)
    noise = np.asarray(standard_normal(noise_key, (1, 10, 3)), np.float64)[0]
    x = binary.reshape(10, -1).astype(np.float64)
    mean = x @ mean_head["kernel"] + mean_head["bias"]
    logvar = x @ logvar_head["kernel"] + logvar_head["bias"]
    z = mean + np.exp(logvar / 2) * noise
    logits = z @ decoder["kernel"] + decoder["bias"]
    reconstruction = np.sum(x * logits - np.log1p(np.exp(logits)), axis=1)
    kl = 0.5 * np.sum(mean**2 + np.exp(logvar) - 1 - logvar, axis=1)
    d_logits = (1 / (1 + np.exp(-logits)) - x) / 10
    d_z = d_logits @ decoder["kernel"].T
    d_mean = d_z + mean / 10
    d_logvar = d_z * noise * np.exp(logvar / 2) / 2 + (np.exp(logvar) - 1) / 20
    by_hand = {
        "posterior": {
            "mean": {"kernel": x.T @ d_mean, "bias": d_mean.sum(0)},
            "logvar": {"kernel": x.T @ d_logvar, "bias": d_logvar.sum(0)},
        },
        "decoder": {"Dense_0": {"kernel": z.T @ d_logits, "bias": d_logits.sum(0)}},
    }

    expected = jax.tree.map(lambda old, gradient: old - rate * gradient, params, by_hand)
    assert_close(after.params, expected, 2e-6)
    assert int(after.step) == 1
    np.testing.assert_allclose(metrics["reconstruction"], reconstruction.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["elbo"], (reconstruction - kl).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], -(reconstruction - kl).mean(), rtol=1e-5)


def test_average_of_the_parameters_by_hand() -> None:
    model, tx, decay = small_model(), optax.sgd(0.1), 0.8
    state, batch = fresh(model, tx, with_average=True), jnp.asarray(digits()[:16])
    train_step = step_of(model, tx, decay)
    expected = np.asarray(state.params["decoder"]["Dense_1"]["bias"], np.float64)
    for _ in range(3):
        state, _ = train_step(state, batch, KEY)
        expected = decay * expected + (1 - decay) * np.asarray(state.params["decoder"]["Dense_1"]["bias"])
    assert state.average is not None
    np.testing.assert_allclose(state.average["decoder"]["Dense_1"]["bias"], expected, atol=1e-7)
    assert state.evaluated["params"] is state.average


@functools.cache
def run_in_chunks(lengths: tuple[int, ...], num_devices: int, unroll: bool = False):
    """The state after so many steps, and the mean of the chunks' metrics."""
    model, tx = small_model(), optax.adam(1e-2)
    mesh, metrics = batch_mesh(16, jax.devices()[:num_devices]), []
    images = digits()
    order = BatchOrder((SEED,), 16, len(images))
    run_steps = ResidentSteps(step_of(model, tx, 0.9), mesh, images, None, order, 12, unroll)
    # Placed as the results will be, or the second call would be compiled anew.
    state = jax.device_put(fresh(model, tx, with_average=True), replicated(mesh))
    for length in lengths:
        state, chunks = run_steps(state, int(state.step), length)
        for chunk in chunks:
            each = length / len(chunks)
            metrics.append({name: each * np.asarray(value, np.float64) for name, value in chunk.items()})
    return jax.device_get(state), jax.tree.map(lambda *parts: sum(parts) / sum(lengths), *metrics)


@pytest.mark.long
def test_division_into_chunks_changes_no_bit() -> None:
    at_once, metrics = run_in_chunks((12,), 8)
    divided, other_metrics = run_in_chunks((1, 4, 7), 8)
    assert_same_bits(at_once, divided)
    assert_close(metrics, other_metrics, 1e-5)


@pytest.mark.long
def test_a_call_for_each_step_takes_the_same_steps() -> None:
    at_once, metrics = run_in_chunks((12,), 8)
    one_by_one, other_metrics = run_in_chunks((1, 4, 7), 8, True)
    assert_close(at_once, one_by_one, 1e-5)
    assert_close(metrics, other_metrics, 1e-5)
    assert_same_bits(one_by_one, run_in_chunks((12,), 8, True)[0])


@pytest.mark.parametrize(("network", "expected"), [("mlp", False), ("conv", True), ("resnet", True)])
def test_convolutions_leave_the_loop_on_cpus_alone(
    network: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_model(ModelConfig(network=small(network), latents=2), SHAPE)
    assert must_unroll(model) == expected
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert not must_unroll(model)


@pytest.mark.parametrize("unroll", [pytest.param(True, marks=pytest.mark.long), False])
@pytest.mark.long
def test_chunks_of_all_lengths_are_compiled_once(unroll: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), jax.log_compiles(True):
        run_in_chunks.__wrapped__((3, 1, 12, 3), 8, unroll)
    compiled = [record.getMessage() for record in caplog.records]
    compiled = [message for message in compiled if message.startswith("Finished XLA compilation of")]
    name = "single_step" if unroll else "many_steps"
    assert len([message for message in compiled if f"jit({name})" in message]) == 1
    # The single step is part of the loop's program and never compiled by itself.
    assert not [message for message in compiled if "train_step" in message]


@pytest.mark.long
def test_no_key_is_used_twice() -> None:
    with jax.debug_key_reuse(True):
        run_in_chunks.__wrapped__((2, 3), 1)


def test_eight_devices_give_the_numbers_of_one() -> None:
    one, metrics = run_in_chunks((12,), 1)
    eight, other_metrics = run_in_chunks((12,), 8)
    assert_close(eight, one, 1e-5)
    assert_close(other_metrics, metrics, 1e-4)


def test_batch_is_divided_over_the_devices() -> None:
    model, tx = small_model(), optax.adam(1e-2)
    order = BatchOrder((SEED,), 16, 100)
    run_steps = ResidentSteps(step_of(model, tx, 0.9), batch_mesh(16), digits(), None, order, 12)
    text = run_steps.compile(fresh(model, tx, with_average=True)).as_text()
    # Each of eight devices works on 2 of 16 images and adds up the gradients.
    assert "f32[2,64]" in text and "f32[16,64]" not in text
    assert "all-reduce" in text
