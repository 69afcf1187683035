"""A run that was trained, as other verbs open it."""

import dataclasses
import pathlib

import jax

from vae_jax import checkpoints
from vae_jax.build import build_data, build_model_for, build_schedule, build_state
from vae_jax.config import Config
from vae_jax.data import Data
from vae_jax.errors import UserError
from vae_jax.runs import RunFolder
from vae_jax.vae import VAE, Params


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run as other verbs see it: its model with the parameters of one checkpoint.

    Attributes:
        folder: Where it is.
        config: As it was trained.
        data: What it was trained on.
        model: The model.
        params: What is evaluated (the average, where one is kept), of one replica.
        step: Steps these parameters have seen.
        replica: Which of the replicas this is.
    """

    folder: RunFolder
    config: Config
    data: Data
    model: VAE
    params: Params
    step: int
    replica: int = 0


def open_run(workdir: str | None, which: str = "latest", replica: int = 0) -> TrainedRun:
    """Opens a run from its folder alone; see `open_replicas`.

    Args:
        workdir: The folder.
        which: A step, `best` or `latest`.
        replica: Which of the models that were trained at once.

    Raises:
        UserError: If there is no such run, checkpoint or replica, or it is damaged.
    """
    replicas = open_replicas(workdir, which)
    if not 0 <= replica < len(replicas):
        raise UserError(
            f"there is no replica {replica}; this run has {len(replicas)}: choose --replica from 0 to "
            f"{len(replicas) - 1}"
        )
    return replicas[replica]


def open_replicas(workdir: str | None, which: str = "latest") -> list[TrainedRun]:
    """Opens all models that a run trained at once; one, for most runs.

    Args:
        workdir: The folder.
        which: A step, `best` or `latest`.

    Raises:
        UserError: If there is no such run or checkpoint, or it is damaged.
    """
    if not workdir:
        raise UserError("no run is named; add --workdir=FOLDER, e.g. --workdir=runs/digits")
    folder = RunFolder(pathlib.Path(workdir))
    config = folder.read_config()
    checkpoint = checkpoints.choose(folder.checkpoints, which)
    data = build_data(config)
    image_shape = data.dataset.image_shape
    model = build_model_for(config, data)
    schedule = build_schedule(config, len(data.training.images))
    like = jax.eval_shape(lambda: build_state(config, model, image_shape, schedule.num_steps))
    params = checkpoints.load(checkpoint, like).evaluated_params
    num_replicas = config.num_seeds if config.num_seeds > 1 else None
    return [
        TrainedRun(folder, config, data, model, replica_params(params, num_replicas, index), checkpoint.step, index)
        for index in range(config.num_seeds)
    ]


def replica_params(params: Params, num_replicas: int | None, index: int) -> Params:
    """One replica's parameters; all there are, where there are no replicas (None)."""
    return params if num_replicas is None else jax.tree.map(lambda leaf: leaf[index], params)
