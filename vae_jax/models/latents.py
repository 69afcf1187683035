"""Latents as one vector: what works on any z, whatever its layers and maps are."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.shapes import Points


def flat_latents(z: Any, shapes: Any) -> Points:
    """All numbers of z in one axis, layer after layer, after the axes that count samples and images.

    Args:
        z: A tree of arrays `[*batch, *shape]`.
        shapes: `Model.latents`, the tree of their shapes.
    """
    leaves = [
        leaf.reshape(*leaf.shape[: leaf.ndim - len(like.shape)], math.prod(like.shape))
        for leaf, like in zip(jax.tree.leaves(z), jax.tree.leaves(shapes), strict=True)
    ]
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves, axis=-1)


def nested_latents(flat: Points, shapes: Any) -> Any:
    """The tree that `flat_latents` made flat."""
    leaves, start = [], 0
    for like in jax.tree.leaves(shapes):
        size = math.prod(like.shape)
        leaves.append(flat[..., start : start + size].reshape(*flat.shape[:-1], *like.shape))
        start += size
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def num_latents(model: Any) -> int:
    """How many numbers z has."""
    return sum(math.prod(like.shape) for like in jax.tree.leaves(model.latents))


def decode_flat(model: Any, variables: Any, flat: Points, context: Any = None) -> Any:
    """p(x|z) at latents in one axis."""
    return model.decode(variables, nested_latents(flat, model.latents), context)


def flat_point(model: Any, variables: Any, batch: Any) -> Points:
    """The mean of q(z|x), or what stands for it, in one axis."""
    return flat_latents(model.point(variables, model.encode(variables, batch)), model.latents)


def sample_flat(model: Any, variables: Any, key: Any, num_samples: int, context: Any = None) -> Points:
    """Latents drawn from p(z), in one axis."""
    return flat_latents(model.sample_prior(variables, key, num_samples, context), model.latents)
