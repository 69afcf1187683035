"""Opens the models of a run from its folder alone."""

import functools
import pathlib

import jax

from vae_jax.build import build_data, build_model_for, build_state, is_custom
from vae_jax.config import PARTS, Config, flatten
from vae_jax.data import Dataset
from vae_jax.errors import DataError, UserError
from vae_jax.escaping import one_line
from vae_jax.models import Variables
from vae_jax.runs import RunFolder, checkpoints
from vae_jax.trained.model import TrainedModel


def open_run(workdir: str | None, which: str = "latest", replica: int = 0, allow_custom: bool = False) -> TrainedModel:
    """Opens one model of a run; see `open_replicas`.

    Args:
        workdir: The folder.
        which: A step, `best` or `latest`.
        replica: Which of the models that were trained together.
        allow_custom: Whether parts named `package.module:Name` may be imported, which runs their code.

    Raises:
        UserError: If the run, checkpoint or replica isn't there, it is damaged, or it needs parts that may not be
            imported.
    """
    return replica_of(open_replicas(workdir, which, allow_custom), replica)


def replica_of(replicas: list[TrainedModel], replica: int) -> TrainedModel:
    """One of the models that a run trained together.

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


def open_replicas(workdir: str | None, which: str = "latest", allow_custom: bool = False) -> list[TrainedModel]:
    """Opens all models that a run trained together; most runs have one.

    Args:
        workdir: The folder.
        which: A step, `best` or `latest`.
        allow_custom: As in `open_run`.

    Raises:
        UserError: If the run or checkpoint isn't there, it is damaged, or it needs parts that may not be imported.
    """
    if not workdir:
        raise UserError("no run is named; add --workdir=FOLDER, e.g. --workdir=runs/digits")
    folder = RunFolder(pathlib.Path(workdir))
    config = folder.read_config()
    check_custom(config, folder.root, allow_custom)
    checkpoint = checkpoints.choose(folder.checkpoints, which)
    load_data = functools.cache(lambda: _load_data(config, folder))
    kind = folder.image_kind() or load_data().kind
    model = build_model_for(config, kind)
    # The number of steps changes learning rates, which are not in the state.
    like = jax.eval_shape(lambda: build_state(config, model, kind.image_shape, num_steps=1))
    variables = checkpoints.load(checkpoint, like).evaluated
    num_replicas = config.num_seeds if config.num_seeds > 1 else None

    def one(index: int) -> TrainedModel:
        chosen = replica_variables(variables, num_replicas, index)
        return TrainedModel(folder, config, kind, model, chosen, checkpoint.step, index, load_data)

    return [one(index) for index in range(config.num_seeds)]


def replica_variables(variables: Variables, num_replicas: int | None, index: int) -> Variables:
    """The variables of one replica; all where there are no replicas (None)."""
    return variables if num_replicas is None else jax.tree.map(lambda leaf: leaf[index], variables)


# The fields that say where a source reads; `digits` reads nothing.
_PLACES = {"folder": "data.dir", "tfds": "data.dir (or TFDS_DATA_DIR)", "npz": "data.path"}


def _load_data(config: Config, folder: RunFolder) -> Dataset:
    """The data of a run, or an error that says how whoever opens the run can mend it.

    Raises:
        UserError: If it isn't there, can't be read, or its images have another shape than before.
    """
    try:
        data = build_data(config)
    except DataError as error:
        field = _PLACES.get(config.data.source, "data.source")
        raise UserError(
            f"the data of '{folder.root}' can't be read: {error.cause}; bring it back to where it was, or, if it is "
            f"somewhere else now, change {field} in {folder.config}"
        ) from error
    folder.check_data(data)
    return data


# Only these fields of a config make a model and its data.
_MADE_OF = (*PARTS, "data.source", "data.binarization")


def check_custom(config: Config, folder: pathlib.Path, allowed: bool) -> None:
    """Refuses parts that would have to be imported: a folder from somebody else could name any code.

    Raises:
        UserError: For the first custom part, if they aren't allowed.
    """
    for name, value, _ in flatten(config):
        if name in _MADE_OF:
            check_custom_name(name, value, folder, allowed)


def check_custom_name(field: str, name: str, folder: pathlib.Path, allowed: bool) -> None:
    """Refuses the name of a part that would have to be imported.

    Raises:
        UserError: If it isn't allowed.
    """
    if not allowed and is_custom(name):
        raise UserError(
            f"'{folder}' has {field} {one_line(repr(name), 100)}, and opening it would run that code; if you trust it, "
            "add --allow_custom, or in Python load(path, allow_custom=True)"
        )
