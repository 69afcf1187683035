"""All questions in a row."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from vae_jax.diagnosis import images as image_questions
from vae_jax.diagnosis import latents as latent_questions
from vae_jax.diagnosis import likelihood as likelihood_questions
from vae_jax.diagnosis.subject import Subject
from vae_jax.errors import UserError
from vae_jax.evaluation import Features, Spectrum

STAGES = ("bound and posteriors", "annealing", "noise", "latents", "samples", "distances")


class Diagnosis(NamedTuple):
    """What was found.

    Attributes:
        result: What `diagnosis.json` holds.
        spectra: Of each kind of image.
        samples: Means of p(x|z), z from the prior.
        nearest: The training image nearest to each.
    """

    result: dict[str, Any]
    spectra: dict[str, Spectrum]
    samples: np.ndarray
    nearest: np.ndarray


def diagnose(subject: Subject, features: Features, on_stage: Callable[[str], object] = print) -> Diagnosis:
    """Measures everything.

    Args:
        subject: What is measured. Its posterior has a density.
        features: What the Fréchet distance sees.
        on_stage: Told the name of each stage, one of `STAGES`, before it begins.

    Raises:
        UserError: If an estimate is not a finite number.
    """
    stages = iter(STAGES)
    on_stage(next(stages))
    per_image = likelihood_questions.measure(subject)
    result: dict[str, Any] = {
        "likelihood": likelihood_questions.likelihood(per_image),
        "gaps": likelihood_questions.gap_terms(per_image),
    }
    on_stage(next(stages))
    result["annealed"] = likelihood_questions.annealed(subject, per_image)
    on_stage(next(stages))
    result["noise"] = likelihood_questions.noise(subject)
    on_stage(next(stages))
    result["latents"] = latent_questions.latents(subject)
    on_stage(next(stages))
    drawn = image_questions.draw(subject)
    result["sharpness"], spectra = image_questions.sharpness(drawn)
    on_stage(next(stages))
    result["distances"] = image_questions.distances(subject, drawn, features, subject.settings.features)
    result["nearest"], samples, nearest = image_questions.nearest(subject, drawn)
    result["settings"] = dataclasses.asdict(subject.settings)
    _check_finite(result)
    return Diagnosis(result, spectra, samples, nearest)


def _check_finite(result: dict[str, Any]) -> None:
    for path, value in jax.tree_util.tree_leaves_with_path(result):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"{jax.tree_util.keystr(path, simple=True, separator='.')} is {value}; the model may have diverged, "
                "try --checkpoint=best"
            )
