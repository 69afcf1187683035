"""Pictures in numbers: sharpness, distance to the data, and memorizing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.diagnosis.subject import Subject, as_label, pixels, spread
from vae_jax.evaluation import Features, Spectrum, frechet_distance, nearest_images, radial_spectrum
from vae_jax.vae import apply

_NEAREST_QUERIES = 200
_IMAGES_AT_ONCE = 100
# Compiled once for all batches.
_apply = jax.jit(apply, static_argnums=(0, 2))


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
    data, labels = pixels(part), subject.labels(part)
    batches = []
    for start in range(0, len(data), _IMAGES_AT_ONCE):
        at = slice(start, start + _IMAGES_AT_ONCE)
        label = None if labels is None else labels[at]
        batches.append(_draw_batch(subject, data[at], label, jax.random.fold_in(subject.stage_key(7), start)))
    return Images(data, *(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def _draw_batch(subject: Subject, x: np.ndarray, labels: np.ndarray | None, key: jax.Array) -> list[np.ndarray]:
    model, params, label = subject.model, subject.params, as_label(labels)
    keys = jax.random.split(key, 4)
    from_prior = apply(model, params, "sample_prior", keys[0], len(x))
    parameters = _apply(model, params, "encode", jnp.asarray(x), label)
    noise = jax.random.normal(keys[1], (1, len(x), model.noise_size))
    from_posterior = _apply(model, params, "transform", parameters, noise)[0][0]
    drawn = []
    for z, sample_key in ((from_prior, keys[2]), (from_posterior, keys[3])):
        drawn.append(np.asarray(_apply(model, params, "decode_sample", z, sample_key, label)))
        drawn.append(np.asarray(_apply(model, params, "decode_mean", z, label)))
    return drawn


def sharpness(images: Images) -> tuple[dict[str, Any], dict[str, Spectrum]]:
    """Power at high frequencies of each kind as a share of the data's; and all spectra."""
    spectra = {name: radial_spectrum(part) for name, part in images._asdict().items()}
    reference = spectra["data"].high
    others = {name: spectrum.high for name, spectrum in spectra.items() if name != "data"}
    ratios = {name: float(high / reference) if reference > 0 else None for name, high in others.items()}
    return {"data_high_frequency_power": reference, "high_frequency_ratio": ratios}, spectra


def distances(subject: Subject, images: Images, features: Features, name: str) -> dict[str, Any]:
    """Fréchet distances to the data, beside that of training images to it: the same number of images in each."""
    kinds = images._asdict()
    data = features(kinds.pop("data"))
    del kinds["reconstruction_means"]
    if not subject.is_training:
        kinds["training_images"] = pixels(spread(subject.data.for_evaluation("train"), len(data)))
    found = {kind: frechet_distance(features(part), data) for kind, part in kinds.items()}
    return {"features": name, "num_images": len(data), "training_images": None, **found}


def nearest(subject: Subject, images: Images) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """How far sample means are from the nearest training image, beside how far the split's reconstructions are.

    The latter tells nothing of the training images themselves, which are among those that are searched.

    Returns:
        The medians; the sample means; and the training image nearest to each.
    """
    training = pixels(subject.data.for_evaluation("train"))
    queries = images.sample_means[:_NEAREST_QUERIES]
    found = nearest_images(queries, training)
    to_samples, held_out = float(np.median(found.distance)), None
    if not subject.is_training:
        held_out = float(np.median(nearest_images(images.reconstruction_means[:_NEAREST_QUERIES], training).distance))
    result = {
        "num_samples": len(queries),
        "samples_to_training": to_samples,
        "reconstructions_to_training": held_out,
        "ratio": to_samples / held_out if held_out else None,
    }
    return result, queries, training[found.index]
