"""The doubly reparameterized gradient of two stochastic layers against the plain gradient over very many keys."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses import loss_of

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import VAE, Batch, init_variables
from vae_jax.noise import standard_normal
from vae_jax.objectives import Dreg, Iwae

SHAPE = (2, 2, 1)
NUM_SAMPLES = 2
CHUNK = 2_000
CHUNKS = 20
MODEL = build_model(
    ModelConfig(
        network="mlp(hidden=())",
        latents=2,
        posterior="hierarchical(upper=1, hidden=(2,))",
        prior="hierarchical(upper=1, hidden=(2,))",
    ),
    SHAPE,
)
# Each pixel is 1 in one of the two images, or some gradients would be exactly zero.
X = jnp.asarray([[1, 0, 0, 1], [0, 1, 1, 0]], jnp.float32).reshape(2, *SHAPE)


def parameters() -> Any:
    """Far from an optimum, so that no gradient is near zero."""
    rng = np.random.default_rng(1)
    fresh = init_variables(MODEL, jax.random.key(0), SHAPE)["params"]
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(0.7 * rng.normal(size=leaf.shape), leaf.dtype), fresh)


class OnlyFirstStopped:
    """Wrong on purpose: in the densities at a given z the parameters of q(z2|z1) don't stand still."""

    def __call__(self, model: VAE, variables: Any, batch: Batch, key: Any, step: Any) -> Any:
        right = Dreg(NUM_SAMPLES)(model, variables, batch, key, step)
        noise = standard_normal(key, (NUM_SAMPLES, batch.x.shape[0], model.noise_size))
        q, z, log_weights = jax.lax.stop_gradient(drawn(model, variables, batch, noise))
        share = jax.nn.softmax(log_weights, axis=0)
        score = -jnp.mean(jnp.sum(jnp.square(share) * model.log_posterior(variables, q, z), axis=0))
        loss = right.players["model"] - (score - jax.lax.stop_gradient(score))
        return right._replace(players={"model": loss})


def drawn(model: VAE, variables: Any, batch: Batch, noise: Any) -> Any:
    q = model.encode(variables, batch)
    joint = model.joint(variables, batch, q, noise=noise)
    return q, joint.z, joint.log_weights


OBJECTIVES = {"plain": Iwae(NUM_SAMPLES), "doubly": Dreg(NUM_SAMPLES), "wrong": OnlyFirstStopped()}


@functools.cache
def moments(name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Mean and squared standard error of each entry of the gradient, by the names of the parameters."""
    objective, params = OBJECTIVES[name], parameters()

    @jax.jit
    def sums(keys: Any) -> Any:
        of_key = jax.grad(lambda params, key: loss_of(objective, MODEL, params, X, key, 0)[0])
        gradients = jax.vmap(of_key, in_axes=(None, 0))(params, keys)
        return jax.tree.map(lambda leaf: (leaf.mean(0), jnp.square(leaf).mean(0)), gradients)

    # Keys of its own for each, or their errors would not be independent.
    keys = jax.random.split(jax.random.key(list(OBJECTIVES).index(name)), (CHUNKS, CHUNK))
    each = [jax.device_get(sums(of_chunk)) for of_chunk in keys]
    total = jax.tree.map(lambda *parts: np.mean(np.asarray(parts, np.float64), axis=0), *each)
    pairs = jax.tree_util.tree_leaves_with_path(total, is_leaf=lambda node: isinstance(node, tuple))
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): pair for path, pair in pairs}
    count = CHUNK * CHUNKS
    mean = {path: first for path, (first, _) in named.items()}
    return mean, {path: (second - first**2) / count for path, (first, second) in named.items()}


def scores(ours: str, theirs: str) -> dict[str, np.ndarray]:
    """Differences of the mean gradients in combined standard errors."""
    (mean, error), (other_mean, other_error) = moments(ours), moments(theirs)
    return {path: (mean[path] - other_mean[path]) / np.sqrt(error[path] + other_error[path]) for path in mean}


PATHS = [
    *(f"posterior/first/{head}/{leaf}" for head in ("mean", "logvar") for leaf in ("kernel", "bias")),
    *(f"posterior/second/{head}/{leaf}" for head in ("Dense_0", "mean", "logvar") for leaf in ("kernel", "bias")),
]


@pytest.mark.long
def test_the_gradient_of_both_layers_is_unbiased() -> None:
    found, (mean, error) = scores("doubly", "plain"), moments("doubly")
    assert {path for path in found if path.startswith("posterior/")} == set(PATHS)
    for path, score in found.items():
        assert np.abs(score).max() < 4.5, path
    # A gradient of zero would not pass either: each parameter's is many errors long.
    for path in PATHS:
        assert np.abs(mean[path] / np.sqrt(error[path])).max() > 10, path


@pytest.mark.long
def test_a_score_of_the_upper_layer_would_be_noticed() -> None:
    found = scores("wrong", "plain")
    farthest = {path: np.abs(score).max() for path, score in found.items()}
    assert max(farthest[path] for path in PATHS if "/second/" in path) > 10
    # Those of the lower layer and of the decoder are right.
    assert max(far for path, far in farthest.items() if "/second/" not in path) < 4.5
