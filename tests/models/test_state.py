"""A model with numbers that change without gradients: in steps, replicas and parts of batches, and on the disk."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from trees import assert_same_bits

from vae_jax.build import build_model
from vae_jax.build.objective import OBJECTIVES
from vae_jax.build.registry import make_part
from vae_jax.cli import main
from vae_jax.config import ModelConfig
from vae_jax.data.binarization import scaled
from vae_jax.loading import load
from vae_jax.models import VAE, Batch, Joint, Variables, init_variables
from vae_jax.objectives import Elbo
from vae_jax.runs import checkpoints
from vae_jax.trained import open_run
from vae_jax.training import TrainState, create_state, make_train_step, replica_of, replicate, with_players

SHAPE = (4, 4, 1)
NUM_STEPS, BATCH_SIZE = 5, 6
KEY = jax.random.key(7)


@dataclasses.dataclass(frozen=True)
class Centered(VAE):
    """Encodes what is left of an image after a running mean of all images."""

    def init(self, key: Any, batch: Batch) -> Variables:
        return {**super().init(key, batch), "state": {"mean": jnp.zeros(batch.x.shape[1:])}}

    def encode(self, variables: Variables, batch: Batch, *, train: bool = False) -> Any:
        return super().encode(variables, batch._replace(x=batch.x - variables["state"]["mean"]), train=train)

    def joint(self, variables: Variables, batch: Batch, q: Any = None, **given: Any) -> Joint:
        before = variables["state"]
        after = {"mean": 0.9 * before["mean"] + 0.1 * jnp.mean(batch.x, axis=0)}
        return super().joint(variables, batch, q, **given)._replace(state=after if given.get("train") else before)


CUSTOM = f"{__name__}:Centered"


def small(kind: str = CUSTOM) -> Any:
    return build_model(ModelConfig(kind=kind, network="mlp(hidden=(5,))", latents=2), SHAPE)


def grey(count: int = NUM_STEPS, seed: int = 0) -> np.ndarray:
    """Batches of images with values from 0 to 16."""
    return np.random.default_rng(seed).integers(0, 17, (count, BATCH_SIZE, *SHAPE)).astype(np.uint8)


@functools.cache
def step_of(**settings: Any) -> Any:
    loss, tx = functools.partial(Elbo(), small()), optax.adam(1e-2)
    return make_train_step(loss, tx, lambda stored, given, key: Batch(scaled(stored, 16)), **settings)


@functools.cache
def fresh(with_average: bool = False, seed: int = 0) -> TrainState:
    return create_state(init_variables(small(), jax.random.key(seed), SHAPE), optax.adam(1e-2), with_average)


def recursion(batches: np.ndarray) -> np.ndarray:
    """The running mean, from zero on."""
    mean = np.zeros(SHAPE)
    for batch in batches:
        mean = 0.9 * mean + 0.1 * (batch / 16).mean(0)
    return mean


def mean_of(state: TrainState) -> np.ndarray:
    assert set(state.model_state) == {"mean"}
    return np.asarray(state.model_state["mean"])


def test_the_state_is_that_of_the_batches_so_far() -> None:
    state, step = fresh(with_average=True), step_of(ema_decay=0.5)
    for batch in grey():
        state, _ = step(state, jnp.asarray(batch), KEY)
    np.testing.assert_allclose(mean_of(state), recursion(grey()), rtol=1e-5)
    assert recursion(grey()).std() > 0.01
    # Neither the optimizer nor the average knows of it: a count, two moments of each parameter, one mean of each.
    num_params = len(jax.tree.leaves(state.params))
    assert len(jax.tree.leaves(state.opt_state)) == 1 + 2 * num_params
    assert jax.tree.structure(state.average) == jax.tree.structure(state.params)
    assert all(leaf.shape != SHAPE for leaf in jax.tree.leaves((state.params, state.opt_state)))
    # What is evaluated has the average of the parameters, and the state of now.
    assert state.evaluated == {"params": state.average, "state": state.model_state}


def test_a_step_sees_the_state_from_before_it() -> None:
    state = fresh()
    images = grey()[0]
    mean = jnp.asarray(np.random.default_rng(3).uniform(size=SHAPE), jnp.float32)
    _, metrics = step_of()(state.replace(model_state={"mean": mean}), jnp.asarray(images), KEY)
    q: Any = small("vae").encode({"params": state.params}, Batch(jnp.asarray(images / 16, jnp.float32) - mean))
    kl = 0.5 * (np.square(q.mean) + np.exp(q.logvar) - 1 - q.logvar)
    np.testing.assert_allclose(metrics["kl"], kl.sum(-1).mean(), rtol=1e-4)
    _, without = step_of()(state, jnp.asarray(images), KEY)
    assert abs(without["kl"] - metrics["kl"]) > 0.01


@pytest.mark.long
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_hands_the_state_on(name: str) -> None:
    model, variables, images = small(), init_variables(small(), KEY, SHAPE), grey()[0]
    objective = make_part("objective", name, OBJECTIVES, num_images=10, num_latents=2)
    variables = with_players(variables, objective.players(model) if hasattr(objective, "players") else {}, KEY)
    # Nothing else of the loss is computed.
    state = jax.jit(lambda batch: objective(model, variables, batch, KEY, jnp.int32(0)).state)
    found = state(Batch(jnp.asarray(images / 16, jnp.float32)))
    np.testing.assert_allclose(found["mean"], recursion(images[None]), rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("unroll", [False, True])
def test_replicas_have_the_states_of_single_runs(unroll: bool) -> None:
    batches = np.stack([grey(seed=0), grey(seed=1)], axis=1)
    keys = jax.random.split(KEY, 2)
    single = [fresh(seed=seed) for seed in range(2)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *single).replace(step=single[0].step)
    step, replicated = step_of(), jax.jit(replicate(step_of(), unroll))
    for batch in batches:
        together, _ = replicated(together, jnp.asarray(batch), keys)
        single = [step(state, jnp.asarray(batch[i]), keys[i])[0] for i, state in enumerate(single)]
    for index, state in enumerate(single):
        ours = replica_of(together, index)
        np.testing.assert_allclose(mean_of(ours), recursion(grey(seed=index)), rtol=1e-5)
        np.testing.assert_allclose(mean_of(ours), mean_of(state), rtol=1e-6)
        for one, other in zip(jax.tree.leaves(ours.params), jax.tree.leaves(state.params), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    assert np.abs(recursion(grey(seed=0)) - recursion(grey(seed=1))).max() > 0.01


@pytest.mark.long
def test_parts_of_a_batch_hand_the_state_on_in_their_order() -> None:
    batch = grey()[0]
    state, _ = step_of(num_parts=3)(fresh(), jnp.asarray(batch), KEY)
    parts = [batch[part::3] for part in range(3)]
    np.testing.assert_allclose(mean_of(state), recursion(np.stack(parts)), rtol=1e-5)
    assert np.abs(recursion(np.stack(parts)) - recursion(np.stack(parts[::-1]))).max() > 1e-3


SMALL = [
    *(f"--config.model.kind={CUSTOM}", "--config.model.network=mlp(hidden=(4,))", "--config.model.latents=2"),
    *("--config.train.log_every=3", "--config.train.report=False", "--config.train.checkpoint_every=3"),
]


def train(folder: pathlib.Path, num_steps: int, *arguments: str) -> pathlib.Path:
    main([f"--workdir={folder}", f"--config.train.num_steps={num_steps}", *SMALL, *arguments])
    return folder


def saved(folder: pathlib.Path) -> dict:
    return checkpoints.load(checkpoints.choose(folder / "checkpoints", "latest"))


@pytest.mark.long
@pytest.mark.parametrize("more", [["--config.train.ema_decay=0.5"], ["--config.num_seeds=2"]])
def test_a_run_that_goes_on_ends_as_one_that_ran_through(more: list[str], tmp_path: pathlib.Path) -> None:
    continued = train(tmp_path / "continued", 3, *more)
    at_3 = saved(continued)
    ours, theirs = saved(train(continued, 6, *more)), saved(train(tmp_path / "at_once", 6, *more))
    assert int(ours["step"]) == 6
    assert_same_bits(ours, theirs)
    before, after = at_3["model_state"]["mean"], ours["model_state"]["mean"]
    # 1 - 0.9^n of the mean of all images, but for the chance of 64 of them at a time.
    np.testing.assert_allclose(after.mean() / before.mean(), (1 - 0.9**6) / (1 - 0.9**3), rtol=0.05)


@pytest.mark.long
def test_evaluation_encodes_with_the_state_of_the_checkpoint(tmp_path: pathlib.Path) -> None:
    run = train(tmp_path / "run", 6)
    main(["evaluate", f"--workdir={run}", "--allow_custom", "--num_samples=3", "--num_images=20"])
    result = json.loads((run / "evaluation.json").read_text())
    trained = open_run(str(run), allow_custom=True)
    mean = saved(run)["model_state"]["mean"]
    np.testing.assert_array_equal(trained.variables["state"]["mean"], mean)
    images = trained.data.for_evaluation("test").images[:20].astype(np.float32)
    plain = VAE(*(getattr(trained.model, field.name) for field in dataclasses.fields(VAE)))

    def kl(x: np.ndarray) -> float:
        q: Any = plain.encode({"params": trained.variables["params"]}, Batch(jnp.asarray(x)))
        return float(np.mean(np.sum(0.5 * (np.square(q.mean) + np.exp(q.logvar) - 1 - q.logvar), axis=-1)))

    np.testing.assert_allclose(result["kl"], kl(images - mean), rtol=1e-4)
    assert abs(kl(images) / result["kl"] - 1) > 0.01


@pytest.mark.long
def test_an_export_has_the_state(tmp_path: pathlib.Path) -> None:
    run, folder = train(tmp_path / "run", 6), tmp_path / "exported"
    main(["export", f"--workdir={run}", f"--output={folder}", "--allow_custom"])
    trained, loaded = open_run(str(run), allow_custom=True), load(folder, allow_custom=True)
    assert_same_bits(dict(trained.variables), dict(loaded.variables))
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(weights["state.mean"], saved(run)["model_state"]["mean"])
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (3, 8, 8, 1)), jnp.float32)
    encoder = jax.export.deserialize((folder / "encoder.jaxexport").read_bytes())
    given = encoder.call(weights, x)["mean"], encoder.call({**weights, "state.mean": 0 * x[0]}, x)["mean"]
    q: Any = trained.model.encode(trained.variables, Batch(x))
    np.testing.assert_allclose(given[0], q.mean, atol=1e-6)
    assert np.abs(given[1] - q.mean).max() > 1e-3
