"""What the latents of a model carry."""

from typing import Any

import jax
import numpy as np

from vae_jax.diagnosis.subject import Subject, spread
from vae_jax.evaluation import active_units, aggregate_terms, label_accuracy, make_latent_terms


def latents(subject: Subject) -> dict[str, Any]:
    """Active units, divergences, mutual information and how well labels can be predicted from the latents."""
    model = subject.model
    part = subject.some(subject.settings.latent_images)
    function, key = make_latent_terms(model), subject.stage_key(6)
    terms = subject.map(function, part, 1, key)
    per_dimension = terms.kl_per_dimension
    active = active_units(terms.mean)
    result = {
        "num_images": len(part.images),
        "latents": int(terms.mean.shape[1]),
        "active_units": len(active),
        "active_dimensions": active.tolist(),
        "kl_per_dimension": None if per_dimension is None else per_dimension.mean(axis=0, dtype=np.float64).tolist(),
        "aggregate": None,
        "aggregate_reason": None,
        "label_accuracy": None,
    }
    if "density_anywhere" in model.traits:
        found = aggregate_terms(model, subject.variables, jax.tree.map(jax.numpy.asarray, terms))
        result["aggregate"] = found._asdict()
    else:
        result["aggregate_reason"] = "log q(z|x) of this posterior is known only at its own samples"
    if part.labels is not None and len(np.unique(part.labels)) > 1 and not subject.is_training:
        training = spread(subject.data.for_evaluation("train"), subject.settings.latent_images)
        if training.labels is not None and len(np.unique(training.labels)) > 1:
            of_training = subject.map(function, training, 1, key)
            result["label_accuracy"] = label_accuracy(of_training.mean, training.labels, terms.mean, part.labels)
    return result
