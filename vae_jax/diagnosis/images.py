"""Pictures in numbers: sharpness, distance to the data, and memorizing."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from vae_jax.diagnosis.subject import Subject, spread
from vae_jax.evaluation import (
    Features,
    Spectrum,
    as_maps,
    frechet_distance,
    map_images,
    nearest_images,
    radial_spectrum,
)
from vae_jax.models import Batch, Model, Variables
from vae_jax.shapes import ImageIds, RandomKey
from vae_jax.sharding import own_device

_NEAREST_QUERIES = 200
_IMAGES_AT_ONCE = 100


class Images(NamedTuple):
    """What is compared; pixels in [0, 1].

    Attributes:
        data: The split's images, as the model sees them.
        samples: Draws from p(x|z), z from the prior.
        sample_means: Means of p(x|z) for the same z.
        reconstructions: Draws from p(x|z), z from q(z|x).
        reconstruction_means: Means for the same z.
    """

    data: np.ndarray
    samples: np.ndarray
    sample_means: np.ndarray
    reconstructions: np.ndarray
    reconstruction_means: np.ndarray


def draw(subject: Subject) -> Images:
    """Images of each kind, the same number of each."""
    part = subject.some(subject.settings.generated_images)
    function = functools.partial(_draw_batch, subject.model, subject.variables, subject.stage_key(7))
    at_once, mesh = min(_IMAGES_AT_ONCE, len(part.images)), own_device()
    drawn = map_images(function, part.images, part.max_value, at_once, mesh, subject.given(part))
    return Images(*map(as_maps, (part.pixels, *drawn)))


@functools.partial(jax.jit, static_argnums=0)
def _draw_batch(model: Model, variables: Variables, key: RandomKey, batch: Batch, image_ids: ImageIds) -> list[Array]:
    keys = jax.random.split(jax.random.fold_in(key, image_ids[0]), 4)
    from_prior = model.sample_prior(variables, keys[0], len(batch.x), batch.context)
    noise = jax.random.normal(keys[1], (1, len(batch.x), model.noise_size))
    z, _ = model.draw(variables, model.encode(variables, batch), noise)
    from_posterior = jax.tree.map(lambda leaf: leaf[0], z)
    drawn = []
    for z, sample_key in ((from_prior, keys[2]), (from_posterior, keys[3])):
        px = model.decode(variables, z, batch.context)
        drawn += [px.sample(sample_key), px.mean()]
    return drawn


def sharpness(images: Images) -> tuple[dict[str, Any], dict[str, Spectrum]]:
    """Power at high frequencies of each kind as a share of the data's; and all spectra.

    Rows of numbers have no such share: their order means nothing.
    """
    spectra = {name: radial_spectrum(part) for name, part in images._asdict().items()}
    reference = spectra["data"].high
    compared = reference > 0 and images.data.shape[1] > 1
    ratios = {name: float(each.high / reference) if compared else None for name, each in spectra.items()}
    del ratios["data"]
    return {"data_high_frequency_power": reference, "high_frequency_ratio": ratios}, spectra


def distances(subject: Subject, images: Images, features: Features, name: str) -> dict[str, Any]:
    """Fréchet distances to the data, beside that of training images to it: the same number of images in each."""
    kinds = images._asdict()
    data = features(kinds.pop("data"))
    del kinds["reconstruction_means"]
    if not subject.is_training:
        kinds["training_images"] = as_maps(spread(subject.data.for_evaluation("train"), len(data)).pixels)
    found = {kind: frechet_distance(features(part), data) for kind, part in kinds.items()}
    return {"features": name, "num_images": len(data), "training_images": None, **found}


def nearest(subject: Subject, images: Images) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """How far sample means are from the nearest training image, beside how far the split's reconstructions are.

    The latter tells nothing of the training images themselves, which are among those that are searched.

    Returns:
        The medians; the sample means; and the training image nearest to each.
    """
    training = as_maps(subject.data.for_evaluation("train").pixels)
    queries = images.sample_means[:_NEAREST_QUERIES]
    distance, index = nearest_images(queries, training)
    to_samples, held_out = float(np.median(distance)), None
    if not subject.is_training:
        distance, _ = nearest_images(images.reconstruction_means[:_NEAREST_QUERIES], training)
        held_out = float(np.median(distance))
    result = {
        "num_samples": len(queries),
        "samples_to_training": to_samples,
        "reconstructions_to_training": held_out,
        "ratio": to_samples / held_out if held_out else None,
    }
    return result, queries, training[index]
