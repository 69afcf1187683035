"""The grids of images that several verbs make."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data import Split
from vae_jax.errors import UserError
from vae_jax.keys import Stream, stream_key
from vae_jax.models import (
    Batch,
    Context,
    Model,
    Variables,
    check_has_density,
    decode_flat,
    flat_point,
    num_latents,
    sample_flat,
)
from vae_jax.pictures import grid, side_by_side

_COLUMNS = 8
_DECODED_AT_ONCE = 512
# Compiled once for all checkpoints of a run.
_flat_point = jax.jit(flat_point, static_argnums=0)


def sample_grid(
    model: Model,
    variables: Variables,
    num_images: int,
    seed: int,
    show: str,
    label: int | None = None,
    context: np.ndarray | None = None,
) -> np.ndarray:
    """A picture of latents drawn from the prior; one column a class where each class has its turn.

    Args:
        model: The model.
        variables: Its variables.
        num_images: How many.
        seed: What they are drawn from.
        show: `mean` of p(x|z), which for binary pixels is their probability, or a `sample` of it.
        label: Class of all images of a conditional model; None for one class after the other.
        context: `[M, C]`, for a model that is told numbers; one row after the other, over and over.

    Raises:
        UserError: If the model has no prior that its decoder was trained on, or no such class.
    """
    check_has_density(model)
    if label is not None and not 0 <= label < model.context_size:
        classes = f"0 to {model.context_size - 1}" if model.context_size else "none: the model isn't conditional"
        raise UserError(f"there is no class {label}; the classes are {classes}")
    key = jax.random.key(seed)
    labels, columns = None, _COLUMNS
    if context is not None:
        labels = jnp.asarray(context[np.arange(num_images) % len(context)])
    elif label is not None:
        labels = jnp.full((num_images,), label)
    elif model.context_size:
        labels, columns = jnp.arange(num_images) % model.context_size, model.context_size
    z = sample_flat(model, variables, stream_key(key, Stream.SAMPLES, 0), num_images, labels)
    return grid(decoded(model, variables, z, key, show, labels), columns)


def decoded(
    model: Model, variables: Variables, z: jax.Array, key: jax.Array, show: str, label: Context = None
) -> np.ndarray:
    """The mean of p(x|z), or a draw from it."""
    return np.asarray(_decoded(model, variables, z, stream_key(key, Stream.SAMPLES, 1), show, label))


@functools.partial(jax.jit, static_argnums=(0, 4))
def _decoded(model: Model, variables: Variables, z: jax.Array, key: jax.Array, show: str, label: Context) -> jax.Array:
    px = decode_flat(model, variables, z, label)
    return px.mean() if show == "mean" else px.sample(key)


def decode_all(
    model: Model, variables: Variables, z: jax.Array, key: jax.Array, show: str, label: Context
) -> np.ndarray:
    """`decoded` for any number of latents, so many at a time."""
    parts = [slice(start, start + _DECODED_AT_ONCE) for start in range(0, len(z), _DECODED_AT_ONCE)]
    images = [
        decoded(model, variables, z[part], each, show, None if label is None else label[part])
        for part, each in zip(parts, jax.random.split(key, len(parts)), strict=True)
    ]
    return np.concatenate(images)


def manifold_grid(model: Model, variables: Variables, num_images: int, seed: int, show: str) -> np.ndarray:
    """A picture of what a model with two latents makes of the plane: z at the quantiles of its standard normal prior.

    Args:
        model: The model.
        variables: Its variables.
        num_images: A square number.
        seed: What samples of p(x|z) are drawn from.
        show: `mean` or `sample` of p(x|z).

    Raises:
        UserError: If there is no such plane, or the images fill no square.
    """
    if "standard_normal" not in model.traits or num_latents(model) != 2 or model.context_size:
        raise UserError(
            "a picture of the manifold needs two latents with a standard normal prior and no labels; train with "
            "--config.model.latents=2, or leave --manifold out"
        )
    side = math.isqrt(num_images)
    if side**2 != num_images:
        raise UserError(f"{num_images} images fill no square; try --num_images={side**2} or {(side + 1) ** 2}")
    # Importing what a report needs takes a second that other pictures needn't wait.
    from vae_jax.report.pictures import manifold_latents

    return grid(decoded(model, variables, jnp.asarray(manifold_latents(side)), jax.random.key(seed), show), side)


def reconstruction_grid(
    model: Model, variables: Variables, split: Split, num_images: int, show: str, seed: int
) -> np.ndarray:
    """A picture of the first images of a split, each left of its reconstruction from the posterior mean."""
    split = split.some(slice(num_images))
    originals, label = split.pixels, None
    if model.context_size and split.given is not None:
        label = jnp.asarray(split.given)
    z = _flat_point(model, variables, Batch(jnp.asarray(originals), context=label).masked())
    return side_by_side(originals, decoded(model, variables, z, jax.random.key(seed), show, label), _COLUMNS // 2)
