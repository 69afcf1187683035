"""The grids of images that several verbs make."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data import Split
from vae_jax.errors import UserError
from vae_jax.keys import Stream, stream_key
from vae_jax.pictures import grid, side_by_side
from vae_jax.priors import StandardNormal
from vae_jax.vae import VAE, Label, Params, apply

_COLUMNS = 8
_DECODED_AT_ONCE = 512
# Compiled once for all checkpoints of a run.
_apply = jax.jit(apply, static_argnums=(0, 2))


def sample_grid(
    model: VAE, params: Params, num_images: int, seed: int, show: str, label: int | None = None
) -> np.ndarray:
    """A picture of latents drawn from the prior; one column a class where each class has its turn.

    Args:
        model: The model.
        params: Its parameters.
        num_images: How many.
        seed: What they are drawn from.
        show: `mean` of p(x|z), which for binary pixels is their probability, or a `sample` of it.
        label: Class of all images of a conditional model; None for one class after the other.

    Raises:
        UserError: If the model has no prior that its decoder was trained on, or no such class.
    """
    if not model.posterior.has_density:
        raise UserError(
            "a plain autoencoder has no distribution of z to sample from; see it with reconstruct, or train with "
            "--config.objective.name=elbo and --config.model.posterior=diagonal_gaussian"
        )
    if label is not None and not 0 <= label < model.num_classes:
        classes = f"0 to {model.num_classes - 1}" if model.num_classes else "none: the model isn't conditional"
        raise UserError(f"there is no class {label}; the classes are {classes}")
    key = jax.random.key(seed)
    z = apply(model, params, "sample_prior", stream_key(key, Stream.SAMPLES, 0), num_images)
    labels, columns = None, _COLUMNS
    if label is not None:
        labels = jnp.full((num_images,), label)
    elif model.num_classes:
        labels, columns = jnp.arange(num_images) % model.num_classes, model.num_classes
    return grid(decoded(model, params, z, key, show, labels), columns)


def decoded(model: VAE, params: Params, z: jax.Array, key: jax.Array, show: str, label: Label = None) -> np.ndarray:
    """The mean of p(x|z), or a draw from it."""
    if show == "mean":
        return np.asarray(_apply(model, params, "decode_mean", z, label))
    return np.asarray(_apply(model, params, "decode_sample", z, stream_key(key, Stream.SAMPLES, 1), label))


def decode_all(model: VAE, params: Params, z: jax.Array, key: jax.Array, show: str, label: Label) -> np.ndarray:
    """`decoded` for any number of latents, so many at a time."""
    parts = [slice(start, start + _DECODED_AT_ONCE) for start in range(0, len(z), _DECODED_AT_ONCE)]
    images = [
        decoded(model, params, z[part], each, show, None if label is None else label[part])
        for part, each in zip(parts, jax.random.split(key, len(parts)), strict=True)
    ]
    return np.concatenate(images)


def manifold_grid(model: VAE, params: Params, num_images: int, seed: int, show: str) -> np.ndarray:
    """A picture of what a model with two latents makes of the plane: z at the quantiles of its standard normal prior.

    Args:
        model: The model.
        params: Its parameters.
        num_images: A square number.
        seed: What samples of p(x|z) are drawn from.
        show: `mean` or `sample` of p(x|z).

    Raises:
        UserError: If there is no such plane, or the images fill no square.
    """
    if not isinstance(model.prior, StandardNormal) or model.prior.latents != 2 or model.num_classes:
        raise UserError(
            "a picture of the manifold needs two latents with a standard normal prior and no labels; train with "
            "--config.model.latents=2, or leave --manifold out"
        )
    side = math.isqrt(num_images)
    if side**2 != num_images:
        raise UserError(f"{num_images} images fill no square; try --num_images={side**2} or {(side + 1) ** 2}")
    # Importing what a report needs takes a second that other pictures needn't wait.
    from vae_jax.report.pictures import manifold_latents

    return grid(decoded(model, params, jnp.asarray(manifold_latents(side)), jax.random.key(seed), show), side)


def reconstruction_grid(model: VAE, params: Params, split: Split, num_images: int, show: str, seed: int) -> np.ndarray:
    """A picture of the first images of a split, each left of its reconstruction from the posterior mean."""
    originals = np.asarray(split.images[:num_images], np.float32) / split.max_value
    label = None
    if model.num_classes and split.labels is not None:
        label = jnp.asarray(split.labels[:num_images])
    z = _apply(model, params, "posterior_mean", jnp.asarray(originals), label)
    return side_by_side(originals, decoded(model, params, z, jax.random.key(seed), show, label), _COLUMNS // 2)
