"""Objectives as functions of the parameters alone, for gradients; and models and images to try them with."""

import functools
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from vae_jax.models import VAE, Batch, init_variables
from vae_jax.objectives import ElboTerms


def loss_of(objective: Any, model: Any, params: Any, x: Any, key: Any, step: Any) -> tuple[jax.Array, ElboTerms]:
    """What the model's player minimizes, and the terms."""
    loss = objective(model, {"params": params}, Batch(x), key, step)
    assert set(loss.players) == {"model"}
    return loss.players["model"], loss.terms


def binary_images(count: int, shape: tuple[int, ...]) -> jax.Array:
    """Zeros and ones."""
    return jnp.asarray(np.random.default_rng(0).integers(0, 2, (count, *shape)), jnp.float32)


@functools.cache
def scattered(model: VAE, shape: tuple[int, ...], scale: float) -> dict:
    """Parameters far enough from the start that nothing is close to zero."""
    params = init_variables(model, jax.random.key(0), shape)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf + scale * rng.normal(size=leaf.shape), jnp.float32), params)


def gradients(objective: Any, model: VAE, params: dict, x: jax.Array, keys: jax.Array) -> tuple[np.ndarray, dict]:
    """Loss and gradient for each of many keys; the gradient of each part as a vector."""

    def one(key: jax.Array) -> tuple[jax.Array, dict]:
        loss = jax.value_and_grad(lambda params: loss_of(objective, model, params, x, key, jnp.int32(0))[0])
        value, gradient = loss(params)
        return value, {part: jax.flatten_util.ravel_pytree(tree)[0] for part, tree in gradient.items()}

    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.jit(jax.vmap(one))(keys))


def assert_same_mean(ours: np.ndarray, others: np.ndarray) -> None:
    """Of gradients `[keys, parameters]`, in their standard errors."""
    errors = np.sqrt(ours.var(0) / len(ours) + others.var(0) / len(others)) + 1e-7
    scores = (ours.mean(0) - others.mean(0)) / errors
    # Some 50 dependent scores: by chance one is beyond 4.5 in fewer than one of 2,000 draws of the keys.
    assert np.abs(scores).max() < 4.5
    assert np.mean(scores**2) < 2.5
    # A gradient that is lost in its error would agree with anything.
    assert np.linalg.norm(others.mean(0)) > 20 * np.sqrt(np.mean(errors**2))
