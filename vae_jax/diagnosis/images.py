"""Pictures in numbers: sharpness, distance to the data, and memorizing."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.diagnosis.subject import Subject, as_label, pixels, spread
from vae_jax.evaluation import Features, Spectrum, frechet_distance, nearest_images, radial_spectrum
from vae_jax.vae import Params, apply

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
    """Images of each kind, as many of each."""
    part = subject.some(subject.settings.generated_images)
    data, labels = pixels(part), subject.labels(part)
    kinds = []
    for start in range(0, len(data), _IMAGES_AT_ONCE):
        x = jnp.asarray(data[start : start + _IMAGES_AT_ONCE])
        label = None if labels is None else as_label(labels[start : start + _IMAGES_AT_ONCE])
        keys = jax.random.split(jax.random.fold_in(subject.stage_key(7), start), 4)
        from_prior = apply(subject.model, subject.params, "sample_prior", keys[0], len(x))
        parameters = _apply(subject.model, subject.params, "encode", x, label)
        noise = jax.random.normal(keys[1], (1, len(x), subject.model.noise_size))
        from_posterior = _transformed(subject, parameters, noise)
        kinds.append(
            [
                np.asarray(_apply(subject.model, subject.params, method, z, *rest, label))
                for z, method, rest in (
                    (from_prior, "decode_sample", (keys[2],)),
                    (from_prior, "decode_mean", ()),
                    (from_posterior, "decode_sample", (keys[3],)),
                    (from_posterior, "decode_mean", ()),
                )
            ]
        )
    return Images(data, *(np.concatenate(parts) for parts in zip(*kinds, strict=True)))


def sharpness(images: Images) -> tuple[dict[str, Any], dict[str, Spectrum]]:
    """Power at high frequencies of each kind as a share of the data's; and all spectra."""
    spectra = {name: radial_spectrum(part) for name, part in images._asdict().items()}
    reference = spectra["data"].high
    ratios = {
        name: float(spectrum.high / reference) if reference > 0 else None
        for name, spectrum in spectra.items()
        if name != "data"
    }
    return {"data_high_frequency_power": reference, "high_frequency_ratio": ratios}, spectra


def distances(subject: Subject, images: Images, features: Features, name: str) -> dict[str, Any]:
    """Fréchet distances to the data, beside that of training images to it: the same number of images in each."""
    training = None
    if not subject.is_training:
        training = pixels(spread(subject.data.for_evaluation("train"), len(images.data)))
    data = features(images.data)
    return {
        "features": name,
        "num_images": len(images.data),
        "samples": frechet_distance(features(images.samples), data),
        "sample_means": frechet_distance(features(images.sample_means), data),
        "reconstructions": frechet_distance(features(images.reconstructions), data),
        "training_images": None if training is None else frechet_distance(features(training), data),
    }


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


def _transformed(subject: Subject, parameters: Params, noise: jax.Array) -> jax.Array:
    return _apply(subject.model, subject.params, "transform", parameters, noise)[0][0]
