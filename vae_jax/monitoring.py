"""Measures a model on the validation and test images while it is trained."""

from typing import Any, NamedTuple

import jax
import numpy as np

from vae_jax import build
from vae_jax.config import Config
from vae_jax.data import Dataset
from vae_jax.data.dataset import Given
from vae_jax.evaluation import Watched, active_units, make_bound, map_images
from vae_jax.evaluation.batches import ImageSource
from vae_jax.keys import Stream, stream_key
from vae_jax.models import Model, Variables, noise_stddev
from vae_jax.numerics import estimate
from vae_jax.sharding import filled_up, put, replicated, whole_mesh
from vae_jax.trained import replica_variables

_SPLITS = ("validation", "test")
_BOUND_SAMPLES = 1
_IMAGES_AT_ONCE = 1000


class _Part(NamedTuple):
    images: ImageSource
    max_value: int
    given: Given


class Monitor:
    """Computes the bound, its terms and the active units of the validation and test images.

    The images stay on the devices if they fit into `data.resident_mb` together with the training images.

    Args:
        config: The run.
        data: Its data set.
        model: Its model.
    """

    def __init__(self, config: Config, data: Dataset, model: Model) -> None:
        self._config, self._model, self._mesh = config, model, whole_mesh()
        self._num_replicas = num_replicas(config)
        self._bound = make_bound(model, _BOUND_SAMPLES, self._num_replicas is not None, build.must_unroll(model))
        parts = {split: data.for_evaluation(split) for split in _SPLITS if len(data.part(split).images)}
        num_bytes = sum(part.images.nbytes for part in (data.training, *parts.values()))
        fits, everywhere = num_bytes <= config.data.resident_mb * 2**20, replicated(self._mesh)
        self._parts = {
            split: _Part(
                put(np.asarray(part.images), everywhere) if fits else part.images,
                part.max_value,
                part.given if model.context_size else None,
            )
            for split, part in parts.items()
        }

    def rows(self, variables: Variables) -> list[dict[str, Any]]:
        """A row of metrics for each split, in nats per image.

        Args:
            variables: Of the model, on the host, with an axis for the replicas in front if there are several.
        """
        return [self._row(split, part, variables) for split, part in self._parts.items()]

    def _row(self, split: str, part: _Part, variables: Variables) -> dict[str, Any]:
        everywhere = replicated(self._mesh)
        key = jax.jit(
            lambda: stream_key(jax.random.key(self._config.data.seed), Stream.EVALUATION), out_shardings=everywhere
        )()
        on_devices = put(variables, everywhere)
        watched: Watched = map_images(
            lambda batch, ids: self._bound(on_devices, batch, ids, key),
            part.images,
            part.max_value,
            filled_up(max(1, _IMAGES_AT_ONCE // self._config.num_seeds), self._mesh),
            self._mesh,
            part.given,
        )
        terms, one_model = watched.terms, self._num_replicas is None
        elbo = None if terms.elbo is None else estimate(terms.elbo.mean(axis=() if one_model else (1,)))
        means = {
            name: None if values is None else np.mean(values, axis=0, dtype=np.float64)
            for name, values in terms._asdict().items()
        }
        replicas = range(self._config.num_seeds)
        stddevs = [
            noise_stddev(self._model, replica_variables(variables, self._num_replicas, index)) for index in replicas
        ]
        stddevs = [float(stddev) for stddev in stddevs if stddev is not None]
        z = np.asarray(watched.means)
        active = [len(active_units(z if one_model else z[:, index])) for index in replicas]
        return {
            "split": split,
            **over_replicas(means, self._num_replicas),
            "elbo_standard_error": None if elbo is None else elbo.standard_error_images,
            "noise_stddev": float(np.mean(stddevs)) if stddevs else None,
            "active_units": active[0] if one_model else float(np.mean(active)),
            "num_images": len(part.images),
        }


def num_replicas(config: Config) -> int | None:
    """How many models a run trains at once; None for a run of one model."""
    return config.num_seeds if config.num_seeds > 1 else None


def over_replicas(means: dict[str, Any], num_replicas: int | None) -> dict[str, Any]:
    """Metrics as a row: means over the replicas, their standard deviations, and the values of each replica.

    Args:
        means: Arrays over the replicas, or scalars for a run of one model.
        num_replicas: None for a run of one model.
    """
    if num_replicas is None:
        return {name: None if value is None else float(value) for name, value in means.items()}
    known = {name: np.asarray(values, np.float64) for name, values in means.items() if values is not None}
    return {
        **{name: float(known[name].mean()) if name in known else None for name in means},
        **{f"{name}_spread": float(values.std(ddof=1)) for name, values in known.items()},
        "replicas": {name: values.tolist() for name, values in known.items()},
    }
