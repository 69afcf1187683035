"""Services that keep track of experiments: Weights & Biases and MLflow."""

import importlib
import pathlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vae_jax.cli.listeners import Listener, Row
from vae_jax.config import Config, flatten
from vae_jax.errors import UserError
from vae_jax.files import read_json, write_json

_PROJECT = "vae_jax"


class Tracker(Listener):
    """A listener that has to be closed, so that what is buffered isn't lost."""

    def close(self) -> None:
        """Sends what is still buffered."""


class WeightsAndBiases(Tracker):
    """The rows as a run of Weights & Biases; where to, and whether offline, is said by its own `WANDB_...` variables.

    Args:
        folder: Of the run; its offline files go there.
        config: The run.
        run_id: What the run goes by, from one start to the next.
    """

    def __init__(self, folder: pathlib.Path, config: Config, run_id: str) -> None:
        wandb = _imported("wandb", "wandb")
        self._run = wandb.init(
            project=_PROJECT, name=folder.name, id=run_id, resume="allow", dir=str(folder), config=_flat(config)
        )
        # Its own steps would have to rise, and a continued run takes some again.
        self._run.define_metric("*", step_metric="step")

    def write(self, row: Row) -> None:
        """Adds a row."""
        self._run.log({**_metrics(row), "step": row["step"]})

    def close(self) -> None:
        """As `Tracker.close`."""
        self._run.finish()


class MLflow(Tracker):
    """The rows as a run of MLflow; where to is said by its own `MLFLOW_TRACKING_URI`.

    Args:
        folder: Of the run.
        config: The run.
        run_id: A tag that the run goes by, from one start to the next.
    """

    def __init__(self, folder: pathlib.Path, config: Config, run_id: str) -> None:
        tracking = _imported("mlflow.tracking", "mlflow")
        self._entities = _imported("mlflow.entities", "mlflow")
        self._client = tracking.MlflowClient()
        found = self._client.get_experiment_by_name(_PROJECT)
        experiment = self._client.create_experiment(_PROJECT) if found is None else found.experiment_id
        runs = self._client.search_runs([experiment], f"tags.vae_jax = '{run_id}'")
        if runs:
            self._run = runs[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        run = self._client.create_run(experiment, run_name=folder.name, tags={"vae_jax": run_id})
        self._run = run.info.run_id
        parameters = [self._entities.Param(name, str(value)) for name, value in _flat(config).items()]
        self._client.log_batch(self._run, params=parameters)

    def write(self, row: Row) -> None:
        """Adds a row."""
        now, step = int(1000 * time.time()), row["step"]
        metrics = [self._entities.Metric(name, value, now, step) for name, value in _metrics(row).items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self) -> None:
        """As `Tracker.close`."""
        self._client.set_terminated(self._run)


TRACKERS: Mapping[str, Callable[[pathlib.Path, Config, str], Tracker]] = {
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}
_MODULES = {"wandb": ("wandb",), "mlflow": ("mlflow.tracking", "mlflow.entities")}


def check_trackers(names: Sequence[str]) -> None:
    """Finds out before anything is written whether these services can be used, as far as that is known here.

    Raises:
        UserError: If there is no such service, or its package is missing.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--track is '{name}' but must be among {', '.join(TRACKERS)}")
        for module in _MODULES[name]:
            _imported(module, name)


def open_tracker(name: str, folder: pathlib.Path, config: Config) -> Tracker:
    """Starts to track a run, or goes on where an earlier start of it left off.

    Args:
        name: One of `TRACKERS`; see `check_trackers`.
        folder: Of the run.
        config: The run.

    Raises:
        UserError: If its package is missing, or it refuses.
    """
    try:
        return TRACKERS[name](folder, config, _run_id(folder))
    except UserError:
        raise
    except Exception as error:
        # Each has exceptions of its own, for the network, the login and the disk.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name} can't be used: {reason}; mend that, or leave --track={name} out") from error


def _run_id(folder: pathlib.Path) -> str:
    path = folder / "tracking.json"
    try:
        return str(read_json(path)["id"])
    except FileNotFoundError:
        found = uuid.uuid4().hex[:12]
        write_json(path, {"id": found})
        return found


def _imported(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{extra} isn't installed; pip install {extra}") from error


def _metrics(row: Row) -> dict[str, float]:
    numbers = {name: value for name, value in row.items() if isinstance(value, float) and name != "epoch"}
    return {f"{row['split']}/{name}": value for name, value in numbers.items()}


def _flat(config: Config) -> dict[str, Any]:
    return {name: value for name, value, _ in flatten(config)}
