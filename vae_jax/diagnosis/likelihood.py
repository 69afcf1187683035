"""How many nats lie between the bound and log p(x), and whose they are."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.diagnosis.subject import Subject, spread, spread_indices
from vae_jax.evaluation import (
    Gaps,
    ImportanceEstimate,
    best_log_factor,
    make_annealed_estimate,
    make_gaps,
    make_importance_estimate,
    make_pilot,
    make_rescaled_estimate,
    sigmoid_temperatures,
    simulate,
)
from vae_jax.models import Batch, noise_stddev
from vae_jax.numerics import Estimate, estimate

_SAMPLES_AT_ONCE = 20
_OPTIMIZATION_SAMPLES = 4
_PILOT_IMAGES = 20
_SEARCH_SAMPLES = 50
_RESCALED_ROWS = 20
# Differences beyond so many standard errors are taken for real.
_STANDARD_ERRORS = 2.0


class PerImage(NamedTuple):
    """What is known of each image of the gap decomposition; both estimates of log p(x) are too low in expectation.

    Attributes:
        importance_optimized: With a q(z) optimized for each image as the proposal.
        importance_encoder: With q(z|x).
    """

    importance_optimized: Gaps
    importance_encoder: ImportanceEstimate

    @property
    def best(self) -> Gaps | ImportanceEstimate:
        """The one whose log p(x) is larger."""
        return max(self, key=lambda each: np.mean(each.log_likelihood, dtype=np.float64))


def measure(subject: Subject) -> PerImage:
    """The bound and log p(x) of the images, with the encoder's q and with the best ones."""
    settings = subject.settings
    part = subject.some(settings.num_images)
    at_once = min(_SAMPLES_AT_ONCE, settings.num_samples)
    importance = make_importance_estimate(subject.model, settings.num_samples, at_once)
    gaps = make_gaps(subject.model, settings.optimization_steps, _OPTIMIZATION_SAMPLES, settings.num_samples)
    return PerImage(
        importance_encoder=subject.map(importance, part, at_once, subject.stage_key(0)),
        importance_optimized=subject.map(gaps, part, 2 * _OPTIMIZATION_SAMPLES, subject.stage_key(1)),
    )


def likelihood(per_image: PerImage) -> dict[str, Any]:
    """The bound, log p(x) by two proposals, and the one to believe: both are too low in expectation."""
    by_method = {
        name: {
            **estimate(each.log_likelihood, each.log_likelihood_variance)._asdict(),
            "effective_sample_size": float(np.mean(each.effective_sample_size)),
        }
        for name, each in per_image._asdict().items()
    }
    best = max(by_method, key=lambda name: by_method[name]["mean"])
    return {
        # On the noise of the gaps, so that their sum is exact.
        "elbo": estimate(*per_image.importance_optimized.encoder)._asdict(),
        **by_method,
        "log_likelihood": {**by_method[best], "method": best},
    }


def gap_terms(per_image: PerImage) -> dict[str, Any]:
    """`log p(x) - ELBO = approximation + amortization`, and what the flow gains over the diagonal family."""
    best, gaps = per_image.best, per_image.importance_optimized
    values, variances = best.log_likelihood, best.log_likelihood_variance
    return {
        "total": estimate(values - gaps.encoder.value, variances + gaps.encoder.variance)._asdict(),
        "approximation": estimate(values - gaps.own.value, variances + gaps.own.variance)._asdict(),
        "amortization": estimate(*gaps.amortization)._asdict(),
        "flow_over_diagonal": estimate(*gaps.flow_gain)._asdict(),
        "elbo_optimized": estimate(*gaps.own)._asdict(),
        "elbo_diagonal": estimate(*gaps.diagonal)._asdict(),
        "elbo_flow": estimate(*gaps.flow)._asdict(),
    }


def annealed(subject: Subject, per_image: PerImage) -> dict[str, Any]:
    """log p(x) of some of the images by annealed importance sampling too, and the bracket on simulated images."""
    settings, model = subject.settings, subject.model
    part = spread(subject.some(settings.num_images), settings.annealed_images)
    chosen = spread_indices(len(per_image.best.log_likelihood), settings.annealed_images)
    # From the posterior the path is short; where its density isn't known at any z it has to be the prior.
    start = "posterior" if "density_anywhere" in model.traits else "prior"
    options = (settings.annealed_chains, settings.leapfrog_steps, start)
    few = spread(part, _PILOT_IMAGES)
    schedule = make_pilot(model, *options)(
        subject.variables,
        subject.batch(few),
        jnp.arange(len(few.images)),
        subject.stage_key(2),
        sigmoid_temperatures(settings.temperatures),
    )
    forward = make_annealed_estimate(model, *options)
    key = subject.stage_key(3)
    found = subject.map(forward, part, settings.annealed_chains, key, schedule)
    best = jax.tree.map(lambda each: each[chosen], per_image.best)
    variances = found.log_likelihood_variance + best.log_likelihood_variance
    difference = estimate(found.log_likelihood - best.log_likelihood, variances)

    given = subject.batch(part).context
    x, z = simulate(model, subject.variables, subject.stage_key(4), len(part.images), given)
    simulated = Batch(x, context=given)
    ids = jnp.arange(len(part.images))
    below = jax.device_get(forward(subject.variables, simulated, ids, key, schedule))
    above = jax.device_get(forward(subject.variables, simulated, ids, key, schedule, z))
    return {
        "start": start,
        "num_images": len(part.images),
        "temperatures": settings.temperatures,
        "chains": settings.annealed_chains,
        "acceptance": float(np.mean(found.acceptance)),
        **estimate(found.log_likelihood, found.log_likelihood_variance)._asdict(),
        "minus_importance": {**difference._asdict(), "verdict": _verdict(difference)},
        "simulated": {
            "below": float(np.mean(below.log_likelihood, dtype=np.float64)),
            "above": float(np.mean(above.log_likelihood, dtype=np.float64)),
            "width": estimate(above.log_likelihood - below.log_likelihood)._asdict(),
        },
    }


def noise(subject: Subject) -> dict[str, Any]:
    """What refitting the width of the decoder's noise gains, the same images and measure."""
    model = subject.model
    if "noise_width" not in model.traits:
        return {"gain": None, "reason": "p(x|z) has no noise whose width could be refitted"}
    part = subject.some(subject.settings.num_images)
    key = subject.stage_key(5)
    search = make_rescaled_estimate(model, min(_SEARCH_SAMPLES, subject.settings.num_samples))

    def mean_log_likelihood(log_factors: np.ndarray) -> np.ndarray:
        found = subject.map(search, part, _RESCALED_ROWS, key, jnp.asarray(log_factors, jnp.float32))
        return np.asarray(np.mean(found.log_likelihood, axis=0, dtype=np.float64))

    best = best_log_factor(mean_log_likelihood)
    final = make_rescaled_estimate(model, subject.settings.num_samples)
    found = subject.map(final, part, _RESCALED_ROWS, key, jnp.asarray([0.0, best], jnp.float32))
    gain = found.log_likelihood[:, 1] - found.log_likelihood[:, 0]
    stddev = noise_stddev(model, subject.variables)
    return {
        "gain": estimate(gain, found.log_likelihood_variance.sum(axis=1))._asdict(),
        "factor": float(np.exp(best)),
        "stddev": None if stddev is None else float(stddev),
        "stddev_refitted": None if stddev is None else float(stddev) * float(np.exp(best)),
        "effective_sample_size": float(np.mean(found.effective_sample_size[:, 1])),
        "reason": None,
    }


def _verdict(difference: Estimate) -> str:
    """Which of two estimates to believe, both of which are too low in expectation."""
    error = difference.standard_error_estimator
    if error is None or abs(difference.mean) <= _STANDARD_ERRORS * error:
        return "agree"
    return "believe annealed" if difference.mean > 0 else "believe importance"
