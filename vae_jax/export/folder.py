"""The files of an exported folder: written all or none, and verified before they are believed."""

import dataclasses
import functools
import hashlib
import pathlib
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from vae_jax.build import build_model_for
from vae_jax.config import Config, from_mapping
from vae_jax.data import Dataset, ImageKind
from vae_jax.errors import UserError
from vae_jax.escaping import one_line
from vae_jax.export.card import model_card
from vae_jax.export.functions import (
    flat,
    flat_params,
    nested_variables,
    serialized_functions,
    variables_like,
    with_state,
)
from vae_jax.files import parse_json, read_bytes, write_json
from vae_jax.models import Model, Variables
from vae_jax.provenance import surroundings
from vae_jax.runs import RunFolder
from vae_jax.trained import TrainedModel, check_custom

MODEL_TYPE = "vae_jax"
_FORMAT = 1
_CARD, _CONFIG, _WEIGHTS, _SUMS = "README.md", "config.json", "model.safetensors", "SHA256SUMS"
_FUNCTION = "{}.jaxexport"
_VERIFIED = (_CONFIG, _WEIGHTS, _FUNCTION.format("encoder"), _FUNCTION.format("decoder"))


def write_export(folder: pathlib.Path, trained: TrainedModel, name: str, license: str) -> None:
    """Fills a folder with everything another person needs of a model.

    Args:
        folder: An empty folder.
        trained: The model.
        name: What the model card calls it.
        license: Of the parameters, as the hub spells it.

    Raises:
        UserError: If what was measured of the run can't be read.
        OSError: If the file system doesn't take it.
    """
    weights = flat_params(with_state(trained.variables))
    # By our own hand, since `save_file` lets nobody but the owner read it.
    (folder / _WEIGHTS).write_bytes(safetensors.numpy.save(weights, metadata={"format": "flax"}))
    for function, content in serialized_functions(
        trained.model, trained.kind.image_shape, bool(trained.context_names)
    ).items():
        (folder / _FUNCTION.format(function)).write_bytes(content)
    start = trained.folder.last_start()
    write_json(
        folder / _CONFIG,
        {
            "model_type": MODEL_TYPE,
            "architectures": ["VAE"],
            "format": _FORMAT,
            "step": trained.step,
            "images": dataclasses.asdict(trained.kind),
            "config": dataclasses.asdict(without_places(trained.config)),
            "data": start.get("data"),
            "trained_with": start.get("versions"),
            "exported_with": surroundings()["versions"],
        },
    )
    (folder / _CARD).write_text(model_card(trained, name, license, start), encoding="utf-8")
    sums = [f"{_digest((folder / file).read_bytes())}  {file}\n" for file in _VERIFIED]
    (folder / _SUMS).write_text("".join(sums), encoding="utf-8")


def without_places(config: Config) -> Config:
    """A config without the folders of the machine it was made on, which say nothing elsewhere."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, dir="", path="", labels=""))


def is_export(folder: pathlib.Path) -> bool:
    """Whether this was an exported folder, sound or not."""
    return any((folder / file).is_file() for file in (*_VERIFIED[1:], _SUMS))


def read_export(folder: pathlib.Path, allow_custom: bool = False) -> TrainedModel:
    """Reads an exported folder; what it says is verified first, and nothing of it is run.

    Args:
        folder: The folder.
        allow_custom: Whether parts that are no members of `vae_jax` may be imported.

    Raises:
        UserError: If a file is missing or damaged, the parameters aren't those of the config, or parts would have to be
            imported and may not.
    """
    files = _verified(folder)
    path = folder / _CONFIG
    try:
        content = parse_json(files[_CONFIG])
        if content["model_type"] != MODEL_TYPE or content["format"] != _FORMAT:
            raise ValueError(f"model_type {content['model_type']!r}, format {content['format']!r}")
        config, kind, step = from_mapping(content["config"]), ImageKind.from_mapping(content["images"]), content["step"]
        if type(step) is not int:
            raise ValueError(f"step {step!r}")
    except (ValueError, KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{path} can't be used ({type(error).__name__}: {one_line(error)}); export again, with this version of "
            "vae_jax"
        ) from error
    check_custom(config, folder, allow_custom)
    model = build_model_for(config, kind)
    variables = _variables(folder, files[_WEIGHTS], model, kind)
    return TrainedModel(RunFolder(folder), config, kind, model, variables, step, 0, functools.partial(_no_data, folder))


def _no_data(folder: pathlib.Path) -> Dataset:
    raise UserError(f"'{folder}' was exported and has no data; open the run instead")


def _verified(folder: pathlib.Path) -> dict[str, bytes]:
    """Content of the files that have a checksum."""
    files = {}
    for name in (_SUMS, *_VERIFIED):
        try:
            files[name] = read_bytes(folder / name)
        except OSError as error:
            raise UserError(
                f"'{folder}' is no whole export: {name} can't be read ({error.strerror}); get a whole copy"
            ) from error
    lines = files.pop(_SUMS).decode("utf-8", "replace").splitlines()
    # As sha256sum writes them: the name follows two spaces, or one and an asterisk.
    sums = {line[66:]: line[:64] for line in lines}
    for name, content in files.items():
        if sums.get(name) != _digest(content):
            raise UserError(
                f"'{folder}' is damaged: {name} isn't what {_SUMS} says it was; get a whole copy, or export again"
            )
    return files


def _variables(folder: pathlib.Path, content: bytes, model: Model, kind: ImageKind) -> Variables:
    """Variables, if they are those of this model."""
    path = folder / _WEIGHTS
    try:
        found = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read ({one_line(error)}); get a whole copy, or export again") from error
    like = variables_like(model, kind.image_shape)
    expected, present = _described(flat(with_state(like))), _described(found)
    if expected != present:
        name = min(dict(expected.items() ^ present.items()))
        raise UserError(
            f"{path} holds another model than {_CONFIG} describes ({name} is {present.get(name, 'absent')} there and "
            f"{expected.get(name, 'absent')} here); get a whole copy, or export again"
        )
    return nested_variables(found, like)


def _described(arrays: dict[str, Any]) -> dict[str, str]:
    return {name: f"{np.dtype(array.dtype)}{list(array.shape)}" for name, array in arrays.items()}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
