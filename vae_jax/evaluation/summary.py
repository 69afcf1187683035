"""What `evaluation.json` says of a model: means over images with their errors, and their spread over replicas."""

import math
from typing import Any

import numpy as np

from vae_jax.errors import UserError
from vae_jax.escaping import counted
from vae_jax.evaluation.importance import ImportanceEstimate
from vae_jax.numerics import bits_per_dim, estimate, estimate_text

# With fewer effective samples than this, the spread of the weights itself is not known.
TOO_FEW_EFFECTIVE_SAMPLES = 5.0
_OVER_REPLICAS = ("elbo", "reconstruction", "kl", "log_likelihood", "bits_per_dim")


def summarize(per_image: ImportanceEstimate, num_pixels: float) -> dict[str, Any]:
    """Means over images, in nats per image, with their errors.

    Args:
        per_image: Estimates of each image.
        num_pixels: Values in an image that are observed, on average.

    Raises:
        UserError: If an estimate is not a finite number.
    """
    bad = np.flatnonzero(~np.isfinite(per_image.log_likelihood))
    if len(bad):
        raise UserError(f"log p(x) of image {bad[0]} is not finite; the model may have diverged, try --checkpoint=best")
    log_likelihood = estimate(per_image.log_likelihood, per_image.log_likelihood_variance)
    size = per_image.effective_sample_size
    return {
        "num_images": log_likelihood.num_images,
        "unit": "nats per image",
        "elbo": estimate(per_image.elbo, per_image.elbo_variance)._asdict(),
        "reconstruction": float(np.mean(per_image.reconstruction, dtype=np.float64)),
        "kl": float(np.mean(per_image.kl, dtype=np.float64)),
        "log_likelihood": log_likelihood._asdict(),
        "bits_per_dim": log_likelihood.scaled(bits_per_dim(1.0, num_pixels))._asdict(),
        "effective_sample_size": {
            "mean": float(size.mean()),
            "minimum": float(size.min()),
            "images_below_5": int(np.sum(size < TOO_FEW_EFFECTIVE_SAMPLES)),
        },
    }


def summarize_replicas(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of each quantity over replicas, beside the results of each.

    `stddev` is the standard deviation between seeds, `standard_error` that of the mean over seeds.

    Args:
        results: Contents of `evaluation.json`, at least 2.
    """
    spread = {}
    for name in _OVER_REPLICAS:
        values = [each[name]["mean"] if isinstance(each[name], dict) else each[name] for each in results]
        stddev = float(np.std(values, ddof=1))
        spread[name] = {
            "mean": float(np.mean(values)),
            "stddev": stddev,
            "standard_error": stddev / math.sqrt(len(values)),
        }
    shared = ("split", "step", "num_images", "num_samples", "unit", "measure")
    return {
        **{name: results[0][name] for name in shared},
        "num_replicas": len(results),
        "over_replicas": spread,
        "replicas": results,
    }


def evaluation_text(result: dict[str, Any]) -> str:
    """The content of `evaluation.json`, as a table for people."""
    if "replicas" in result:
        return _replicas_text(result)
    size = result["effective_sample_size"]
    lines = [
        f"{counted(result['num_images'], result['split'] + ' image')}, step {result['step']}, "
        f"K = {result['num_samples']}, {result['unit']}, density: {result['measure']}",
        f"  ELBO            {estimate_text(result['elbo'])}",
        f"    reconstruction {result['reconstruction']:.3f}, KL {result['kl']:.3f}",
        f"  log p(x)        {estimate_text(result['log_likelihood'])}",
        f"  bits per dim    {estimate_text(result['bits_per_dim'], 4)}",
        f"  effective sample size: mean {size['mean']:.1f}, smallest {size['minimum']:.1f} of {result['num_samples']}",
    ]
    if result["noise_stddev"] is not None:
        lines.append(f"  noise of p(x|z) {result['noise_stddev']:.4f} (standard deviation of a pixel)")
    if size["images_below_5"]:
        lines.append(
            f"  note: {size['images_below_5']} images have an effective sample size below 5: their log p(x) is a lower "
            "bound with an unknown error; raise --num_samples"
        )
    return "\n".join(lines)


def _replicas_text(result: dict[str, Any]) -> str:
    lines = []
    for each in result["replicas"]:
        lines += [f"replica {each['replica']}, seed {each['seed']}:", evaluation_text(each)]
    lines.append(f"over {result['num_replicas']} replicas, mean ± standard deviation between seeds:")
    for name, entry in result["over_replicas"].items():
        digits = 4 if name == "bits_per_dim" else 3
        lines.append(f"  {name.replace('_', ' '):<16} {entry['mean']:.{digits}f} ± {entry['stddev']:.{digits}f}")
    return "\n".join(lines)
