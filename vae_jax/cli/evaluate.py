"""`evaluate`: the bound and log p(x) of a trained model, with their errors."""

import sys
from typing import Any

import jax
import tqdm
from absl import flags

from vae_jax.cli.flags import Flags, define_choice, define_section, given_section
from vae_jax.cli.terminal import say
from vae_jax.config import EvaluateConfig
from vae_jax.data import Split, take
from vae_jax.evaluation import (
    ImportanceEstimate,
    estimate_images,
    evaluation_text,
    summarize,
    summarize_replicas,
    values_per_example,
)
from vae_jax.keys import Stream, stream_key
from vae_jax.models import check_has_density, noise_stddev
from vae_jax.trained import TrainedModel, open_replicas, replica_of


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    define_choice(values, replica=None)
    flags.DEFINE_string("split", "test", "train, validation or test", flag_values=values)
    define_section(values, EvaluateConfig)


def run(values: Flags) -> None:
    """Runs the verb."""
    replicas = open_replicas(values["workdir"], values["checkpoint"], values["allow_custom"])
    if values["replica"] is not None:
        replicas = [replica_of(replicas, values["replica"])]
    first, split = replicas[0], values["split"]
    settings = given_section(values, first.config.evaluate)
    first.folder.check_writable()
    results = [_evaluate(trained, split, settings) for trained in replicas]
    result = results[0] if len(results) == 1 else summarize_replicas(results)
    # The result of one replica is written beside that of all.
    one = f"_replica{first.replica}" if first.config.num_seeds > 1 and len(replicas) == 1 else ""
    path = first.folder.root / f"evaluation{'' if split == 'test' else f'_{split}'}{one}.json"
    first.folder.write_json(path, result)
    say(f"{evaluation_text(result)}\nwritten to {path}")


def _evaluate(trained: TrainedModel, split: str, settings: EvaluateConfig) -> dict[str, Any]:
    part = trained.data.for_evaluation(split)
    per_image = importance_estimates(trained, part, settings)
    stddev = noise_stddev(trained.model, trained.variables)
    return {
        "split": split,
        "step": trained.step,
        "replica": trained.replica,
        "seed": trained.config.seed + trained.replica,
        "params_digest": trained.params_digest,
        "data_fingerprint": trained.data.fingerprint,
        "num_samples": settings.num_samples,
        "measure": trained.model.measure,
        "noise_stddev": None if stddev is None else float(stddev),
        **summarize(per_image, values_per_example(take(part.images, slice(settings.num_images or None)))),
    }


def importance_estimates(trained: TrainedModel, part: Split, settings: EvaluateConfig) -> ImportanceEstimate:
    """Estimates log p(x) of each image, with a progress bar.

    Args:
        trained: The run.
        part: The images.
        settings: Samples, images and memory.

    Returns:
        Arrays over the images.
    """
    check_has_density(trained.model)
    chosen = part.some(slice(settings.num_images or None))
    with tqdm.tqdm(total=len(chosen.images), unit="image", disable=not sys.stderr.isatty()) as bar:
        return estimate_images(
            trained.model,
            trained.variables,
            chosen.images,
            chosen.max_value,
            evaluation_key(trained),
            settings.num_samples,
            settings.memory_mb,
            chosen.given,
            lambda done: bar.update(done - bar.n),
        )


def evaluation_key(trained: TrainedModel) -> jax.Array:
    """The key of all noise of a run's evaluations; a function of the data's seed, not the run's."""
    return stream_key(jax.random.key(trained.config.data.seed), Stream.EVALUATION)
