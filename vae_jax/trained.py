"""A run that was trained, as other verbs open it."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax

from vae_jax import checkpoints
from vae_jax.build import build_data, build_model_for, build_state
from vae_jax.config import Config
from vae_jax.data import Data, ImageKind
from vae_jax.errors import UserError
from vae_jax.runs import RunFolder
from vae_jax.vae import VAE, Params


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run as other verbs see it: its model with the parameters of one checkpoint.

    Attributes:
        folder: Where it is.
        config: As it was trained.
        kind: What images the model is for.
        model: The model.
        params: What is evaluated (the average, where one is kept), of one replica.
        step: Steps these parameters have seen.
        replica: Which of the replicas this is.
        load_data: Reads what it was trained on, once.
    """

    folder: RunFolder
    config: Config
    kind: ImageKind
    model: VAE
    params: Params
    step: int
    replica: int
    load_data: Callable[[], Data]

    @property
    def data(self) -> Data:
        """What it was trained on; read when it's first asked for, since the model itself needs no data.

        Raises:
            UserError: If the data is no longer there, or has another form than it had.
        """
        data = self.load_data()
        self.folder.check_images(data.kind)
        return data


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
    load_data = functools.cache(lambda: build_data(config))
    kind = folder.image_kind() or load_data().kind
    model = build_model_for(config, kind)
    # The number of steps changes learning rates, which are no part of a state.
    like = jax.eval_shape(lambda: build_state(config, model, kind.image_shape, num_steps=1))
    params = checkpoints.load(checkpoint, like).evaluated_params
    num_replicas = config.num_seeds if config.num_seeds > 1 else None

    def one(index: int) -> TrainedRun:
        chosen = replica_params(params, num_replicas, index)
        return TrainedRun(folder, config, kind, model, chosen, checkpoint.step, index, load_data)

    return [one(index) for index in range(config.num_seeds)]


def replica_params(params: Params, num_replicas: int | None, index: int) -> Params:
    """One replica's parameters; all there are, where there are no replicas (None)."""
    return params if num_replicas is None else jax.tree.map(lambda leaf: leaf[index], params)
