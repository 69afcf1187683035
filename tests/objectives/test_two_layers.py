"""The doubly reparameterized gradient of two stochastic layers against the plain gradient over very many keys."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from losses import loss_of, scattered

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
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


OBJECTIVES = (Iwae(NUM_SAMPLES), Dreg(NUM_SAMPLES))


def moments(number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Mean and squared standard error of each entry of the gradient, by the names of the parameters."""
    objective, params = OBJECTIVES[number], scattered(MODEL, SHAPE, 0.7)

    @jax.jit
    def sums(keys: Any) -> Any:
        of_key = jax.grad(lambda params, key: loss_of(objective, MODEL, params, X, key, 0)[0])
        gradients = jax.vmap(of_key, in_axes=(None, 0))(params, keys)
        return jax.tree.map(lambda leaf: (leaf.mean(0), jnp.square(leaf).mean(0)), gradients)

    # Keys of its own for each, or their errors would not be independent.
    keys = jax.random.split(jax.random.key(number), (CHUNKS, CHUNK))
    each = [jax.device_get(sums(of_chunk)) for of_chunk in keys]
    total = jax.tree.map(lambda *parts: np.mean(np.asarray(parts, np.float64), axis=0), *each)
    pairs = jax.tree_util.tree_leaves_with_path(total, is_leaf=lambda node: isinstance(node, tuple))
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): pair for path, pair in pairs}
    count = CHUNK * CHUNKS
    mean = {path: first for path, (first, _) in named.items()}
    return mean, {path: (second - first**2) / count for path, (first, second) in named.items()}


PATHS = [
    *(f"posterior/first/{head}/{leaf}" for head in ("mean", "logvar") for leaf in ("kernel", "bias")),
    *(f"posterior/second/{head}/{leaf}" for head in ("Dense_0", "mean", "logvar") for leaf in ("kernel", "bias")),
]


@pytest.mark.long
def test_the_gradient_of_both_layers_is_unbiased() -> None:
    (other_mean, other_error), (mean, error) = moments(0), moments(1)
    assert {path for path in mean if path.startswith("posterior/")} == set(PATHS)
    for path in mean:
        score = (mean[path] - other_mean[path]) / np.sqrt(error[path] + other_error[path])
        assert np.abs(score).max() < 4.5, path
    # A gradient of zero would not pass either: each parameter's is many errors long.
    for path in PATHS:
        assert np.abs(mean[path] / np.sqrt(error[path])).max() > 10, path
