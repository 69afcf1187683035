"""Weights & Biases gets the metrics too, with `--track=wandb`."""

import importlib
import pathlib
import uuid
from collections.abc import Sequence
from typing import Any

from vae_jax.cli.listeners import Listener, Row
from vae_jax.config import Config, flatten
from vae_jax.errors import UserError
from vae_jax.files import read_json, write_json

_PROJECT = "vae_jax"
TRACKERS = ("wandb",)


class WeightsAndBiases(Listener):
    """The rows as a run of Weights & Biases; its own `WANDB_...` variables say where to, and whether offline.

    Args:
        folder: Of the run; its offline files go there.
        config: The run.

    Raises:
        UserError: If its package is missing, or it refuses.
    """

    def __init__(self, folder: pathlib.Path, config: Config) -> None:
        try:
            self._run = _wandb().init(
                project=_PROJECT,
                name=folder.name,
                id=_run_id(folder),
                resume="allow",
                dir=str(folder),
                config={name: value for name, value, _ in flatten(config)},
            )
        except UserError:
            raise
        except Exception as error:
            # It has exceptions of its own, for the network, the login and the disk.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"wandb can't be used: {reason}; mend that, or leave --track=wandb out") from error
        # Its own steps would have to rise, and a continued run takes some again.
        self._run.define_metric("*", step_metric="step")

    def write(self, row: Row) -> None:
        """Adds a row."""
        numbers = {name: value for name, value in row.items() if isinstance(value, float) and name != "epoch"}
        self._run.log({**{f"{row['split']}/{name}": value for name, value in numbers.items()}, "step": row["step"]})

    def close(self) -> None:
        """Sends what is still buffered."""
        self._run.finish()


def check_trackers(names: Sequence[str]) -> None:
    """Finds out before anything is written whether these services can be used.

    Raises:
        UserError: If there is no such service, or its package is missing.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--track is '{name}' but must be among {', '.join(TRACKERS)}")
        _wandb()


def _run_id(folder: pathlib.Path) -> str:
    """What the run is called from one start to the next."""
    path = folder / "tracking.json"
    try:
        return str(read_json(path)["id"])
    except FileNotFoundError:
        found = uuid.uuid4().hex[:12]
        write_json(path, {"id": found})
        return found


def _wandb() -> Any:
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise UserError("wandb isn't installed; pip install wandb") from error
