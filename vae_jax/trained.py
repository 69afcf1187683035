"""A run that was trained, as other verbs open it."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from vae_jax import checkpoints
from vae_jax.build import build_data, build_model_for, build_state
from vae_jax.config import Config, flatten
from vae_jax.data import Dataset, ImageKind
from vae_jax.errors import DataError, UserError
from vae_jax.printable import one_line
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
    load_data: Callable[[], Dataset]

    @property
    def data(self) -> Dataset:
        """What it was trained on; read when it's first asked for, since the model itself needs no data.

        Raises:
            UserError: If the data is no longer there, or has another form than it had.
        """
        return self.load_data()

    @functools.cached_property
    def params_digest(self) -> str:
        """What tells these parameters from others: a result that names it was measured with them."""
        return digest(self.params)

    @property
    def suffix(self) -> str:
        """What the names of a later replica's files end with, so that they don't overwrite those of the first."""
        return f"_replica{self.replica}" if self.replica else ""


def open_run(workdir: str | None, which: str = "latest", replica: int = 0, allow_custom: bool = False) -> TrainedRun:
    """Opens a run from its folder alone; see `open_replicas`.

    Args:
        workdir: The folder.
        which: A step, `best` or `latest`.
        replica: Which of the models that were trained at once.
        allow_custom: Whether parts named `package.module:Name` may be imported, which runs their code.

    Raises:
        UserError: If there is no such run, checkpoint or replica, it is damaged, or it needs parts that may not be
            imported.
    """
    return replica_of(open_replicas(workdir, which, allow_custom), replica)


def replica_of(replicas: list[TrainedRun], replica: int) -> TrainedRun:
    """One of the models that a run trained at once.

    Raises:
        UserError: If it isn't there.
    """
    if not 0 <= replica < len(replicas):
        instead = (
            "this run has one model, 0"
            if len(replicas) == 1
            else f"this run has {len(replicas)}: choose a replica from 0 to {len(replicas) - 1}"
        )
        raise UserError(f"there is no replica {replica}; {instead}")
    return replicas[replica]


def open_replicas(workdir: str | None, which: str = "latest", allow_custom: bool = False) -> list[TrainedRun]:
    """Opens all models that a run trained at once; one, for most runs.

    Args:
        workdir: The folder.
        which: A step, `best` or `latest`.
        allow_custom: As in `open_run`.

    Raises:
        UserError: If there is no such run or checkpoint, it is damaged, or it needs parts that may not be imported.
    """
    if not workdir:
        raise UserError("no run is named; add --workdir=FOLDER, e.g. --workdir=runs/digits")
    folder = RunFolder(pathlib.Path(workdir))
    config = folder.read_config()
    check_custom(config, folder.root, allow_custom)
    checkpoint = checkpoints.choose(folder.checkpoints, which)
    load_data = functools.cache(lambda: _data_of(config, folder))
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


# Where a config says what a source reads; `digits` reads nothing.
_PLACES = {"folder": "data.dir", "tfds": "data.dir (or TFDS_DATA_DIR)", "npz": "data.path"}


def _data_of(config: Config, folder: RunFolder) -> Dataset:
    """What a run was trained on, or an error that whoever opens a run can do something about.

    Raises:
        UserError: If it isn't there, can't be read, or has another form than it had.
    """
    try:
        data = build_data(config)
    except DataError as error:
        field = _PLACES.get(config.data.source, "data.source")
        raise UserError(
            f"the data of '{folder.root}' can't be read: {error.cause}; bring it back to where it was, or, if it is "
            f"somewhere else now, change {field} in {folder.config}"
        ) from error
    folder.check_images(data.kind)
    folder.warn_of_other_data(data)
    return data


def digest(params: Params) -> str:
    """Hexadecimal digest of parameters, bit by bit (SHA-256, first 16 digits)."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(params)):
        total.update(jax.tree_util.keystr(path).encode())
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()[:16]


# A config's other fields are not looked at to make a model and its data.
_MADE_OF = ("model.", "train.", "data.source", "data.binarization")


def check_custom(config: Config, folder: pathlib.Path, allowed: bool) -> None:
    """Refuses parts that would have to be imported: a folder from somebody else could name any code.

    Raises:
        UserError: With the first of them, if they aren't allowed.
    """
    for name, value, _ in flatten(config):
        if name.startswith(_MADE_OF) and isinstance(value, str):
            check_custom_name(name, value, folder, allowed)


def check_custom_name(field: str, name: str, folder: pathlib.Path, allowed: bool) -> None:
    """Refuses a name of a field that would have to be imported.

    Raises:
        UserError: If it isn't allowed.
    """
    if not allowed and ":" in name:
        raise UserError(
            f"'{folder}' has {field} {one_line(repr(name), 100)}, and opening it would run that code; if you trust it, "
            "add --allow_custom, or in Python load(path, allow_custom=True)"
        )


def replica_params(params: Params, num_replicas: int | None, index: int) -> Params:
    """One replica's parameters; all there are, where there are no replicas (None)."""
    return params if num_replicas is None else jax.tree.map(lambda leaf: leaf[index], params)
