"""`evaluate`: the bound and log p(x) of a trained model, with their errors."""

import math
import sys
from typing import Any

import jax
import numpy as np
import tqdm
from absl import flags

from vae_jax.cli.flags import Flags, define_section, define_workdir, given_section
from vae_jax.cli.show import noise_stddev
from vae_jax.cli.terminal import say
from vae_jax.config import EvaluateConfig
from vae_jax.data import Split, take
from vae_jax.errors import UserError
from vae_jax.evaluation import ImportanceEstimate, make_importance_estimate, map_images, samples_at_once
from vae_jax.keys import Stream, stream_key
from vae_jax.numerics import bits_per_dim, estimate, estimate_text
from vae_jax.printable import counted
from vae_jax.sharding import filled_up, replicated, whole_mesh
from vae_jax.trained import TrainedRun, open_replicas, replica_of

_IMAGES_AT_ONCE = 100
# Fewer effective samples than this leave the weights' spread itself unknown.
_TOO_FEW_EFFECTIVE_SAMPLES = 5.0


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_workdir(values)
    flags.DEFINE_string("split", "test", "train, validation or test", flag_values=values)
    meaning = "which of the models that were trained at once (num_seeds); all if not given"
    flags.DEFINE_integer("replica", None, meaning, flag_values=values, lower_bound=0)
    define_section(values, EvaluateConfig)


def run(values: Flags) -> None:
    """Runs the verb."""
    replicas = open_replicas(values["workdir"], values["checkpoint"], values["allow_custom"])
    if values["replica"] is not None:
        replicas = [replica_of(replicas, values["replica"])]
    first, split = replicas[0], values["split"]
    settings = given_section(values, first.config.evaluate)
    first.folder.check_writable()
    results, lines = [], []
    for trained in replicas:
        estimates = importance_estimates(trained, trained.data.for_evaluation(split), settings)
        results.append(summary(trained, split, settings, estimates))
        if len(replicas) > 1:
            lines.append(f"replica {trained.replica}, seed {trained.config.seed + trained.replica}:")
        lines.append(table(results[-1]))
    result = results[0] if len(results) == 1 else over_replicas(results)
    if len(results) > 1:
        lines.append(replica_table(result))
    # The result of one replica stands beside that of all.
    one = f"_replica{first.replica}" if first.config.num_seeds > 1 and len(replicas) == 1 else ""
    name = f"evaluation{'' if split == 'test' else f'_{split}'}{one}.json"
    first.folder.write_json(first.folder.root / name, result)
    say("\n".join([*lines, f"written to {first.folder.root / name}"]))


def importance_estimates(trained: TrainedRun, part: Split, settings: EvaluateConfig) -> ImportanceEstimate:
    """Estimates log p(x) of each image, with a progress bar.

    Args:
        trained: The run.
        part: The images.
        settings: Samples, images and memory.

    Returns:
        Arrays over the images.
    """
    check_has_density(trained)
    images = take(part.images, slice(settings.num_images or None))
    mesh = whole_mesh()
    batch_size = filled_up(min(_IMAGES_AT_ONCE, len(images)), mesh)
    chunk = samples_at_once(trained.model, trained.kind.image_shape, batch_size, settings.memory_mb)
    function = make_importance_estimate(trained.model, settings.num_samples, min(chunk, settings.num_samples))
    key = evaluation_key(trained)
    params = jax.device_put(trained.params, replicated(mesh))
    with tqdm.tqdm(total=len(images), unit="image", disable=not sys.stderr.isatty()) as bar:
        return map_images(
            lambda x, ids, label: function(params, x, ids, key, label),
            images,
            part.max_value,
            batch_size,
            mesh,
            part.labels if trained.model.num_classes else None,
            lambda done: bar.update(done - bar.n),
        )


def check_has_density(trained: TrainedRun) -> None:
    """Refuses a model of which no log p(x) can be estimated.

    Raises:
        UserError: If it is one.
    """
    if not trained.model.posterior.has_density:
        raise UserError(
            f"this model has no log p(x) to estimate: its posterior '{trained.config.model.posterior}' has no density; "
            "see its pictures with reconstruct, or train a model with another posterior"
        )


def evaluation_key(trained: TrainedRun) -> jax.Array:
    """What the noise of every evaluation of a run comes from; a function of the data's seed, not the run's."""
    return stream_key(jax.random.key(trained.config.data.seed), Stream.EVALUATION)


def summary(trained: TrainedRun, split: str, settings: EvaluateConfig, per_image: ImportanceEstimate) -> dict[str, Any]:
    """What `evaluation.json` holds.

    Raises:
        UserError: If an estimate is not a finite number.
    """
    if not np.all(np.isfinite(per_image.log_likelihood)):
        bad = int(np.flatnonzero(~np.isfinite(per_image.log_likelihood))[0])
        raise UserError(
            f"log p(x) of {split} image {bad} is not finite; the model may have diverged, try --checkpoint=best"
        )
    log_likelihood = estimate(per_image.log_likelihood, per_image.log_likelihood_variance)
    to_bits = bits_per_dim(1.0, math.prod(trained.kind.image_shape))
    ess = per_image.effective_sample_size
    return {
        "split": split,
        "step": trained.step,
        "replica": trained.replica,
        "params_digest": trained.params_digest,
        "data_fingerprint": trained.data.fingerprint,
        "num_images": log_likelihood.num_images,
        "num_samples": settings.num_samples,
        "unit": "nats per image",
        "measure": trained.model.likelihood.base_measure,
        "noise_stddev": noise_stddev(trained.model, trained.params),
        "elbo": estimate(per_image.elbo, per_image.elbo_variance)._asdict(),
        "reconstruction": float(np.mean(per_image.reconstruction, dtype=np.float64)),
        "kl": float(np.mean(per_image.kl, dtype=np.float64)),
        "log_likelihood": log_likelihood._asdict(),
        "bits_per_dim": log_likelihood.scaled(to_bits)._asdict(),
        "effective_sample_size": {
            "mean": float(ess.mean()),
            "minimum": float(ess.min()),
            "images_below_5": int(np.sum(ess < _TOO_FEW_EFFECTIVE_SAMPLES)),
        },
    }


def table(result: dict[str, Any]) -> str:
    """The summary for people."""
    ess = result["effective_sample_size"]
    lines = [
        f"{counted(result['num_images'], result['split'] + ' image')}, step {result['step']}, "
        f"K = {result['num_samples']}, {result['unit']}, density: {result['measure']}",
        f"  ELBO            {estimate_text(result['elbo'])}",
        f"    reconstruction {result['reconstruction']:.3f}, KL {result['kl']:.3f}",
        f"  log p(x)        {estimate_text(result['log_likelihood'])}",
        f"  bits per dim    {estimate_text(result['bits_per_dim'], 4)}",
        f"  effective sample size: mean {ess['mean']:.1f}, smallest {ess['minimum']:.1f} of {result['num_samples']}",
    ]
    if result["noise_stddev"] is not None:
        lines.append(f"  noise of p(x|z) {result['noise_stddev']:.4f} (standard deviation of a pixel)")
    if ess["images_below_5"]:
        lines.append(
            f"  note: {ess['images_below_5']} images have an effective sample size below 5: their log p(x) is a lower "
            "bound whose error is not known; raise --num_samples"
        )
    return "\n".join(lines)


_REPLICATED = ("elbo", "reconstruction", "kl", "log_likelihood", "bits_per_dim")


def over_replicas(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What `evaluation.json` holds of replicas: mean and spread of each quantity, and the summary of each replica.

    The standard deviation is that between models of different seeds; the standard error is that of the mean over seeds.
    """
    spread = {}
    for name in _REPLICATED:
        values = [each[name]["mean"] if isinstance(each[name], dict) else each[name] for each in results]
        deviation = float(np.std(values, ddof=1))
        spread[name] = {
            "mean": float(np.mean(values)),
            "stddev": deviation,
            "standard_error": deviation / math.sqrt(len(values)),
        }
    shared = ("split", "step", "num_images", "num_samples", "unit", "measure")
    return {
        **{name: results[0][name] for name in shared},
        "num_replicas": len(results),
        "over_replicas": spread,
        "replicas": results,
    }


def replica_table(result: dict[str, Any]) -> str:
    """The mean and the spread over replicas, for people."""
    lines = [f"over {result['num_replicas']} replicas, mean ± standard deviation between seeds:"]
    for name, entry in result["over_replicas"].items():
        digits = 4 if name == "bits_per_dim" else 3
        lines.append(f"  {name.replace('_', ' '):<16} {entry['mean']:.{digits}f} ± {entry['stddev']:.{digits}f}")
    return "\n".join(lines)
