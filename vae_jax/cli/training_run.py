"""A training run: prepares its data, model, steps and state, and keeps what training gives."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vae_jax import build
from vae_jax.cli.listeners import Row
from vae_jax.cli.memory import check_memory
from vae_jax.cli.show import reconstruction_grid, sample_grid
from vae_jax.cli.signals import StopRequest
from vae_jax.cli.terminal import say
from vae_jax.config import Config
from vae_jax.data import Dataset, Split
from vae_jax.errors import UserError
from vae_jax.models import Model
from vae_jax.monitoring import Monitor, num_replicas, over_replicas
from vae_jax.pictures import write_png
from vae_jax.processes import any_process, is_writer, together
from vae_jax.runs import RunFolder, checkpoints
from vae_jax.sharding import batch_mesh, put, replicated
from vae_jax.trained import TrainedModel, replica_variables
from vae_jax.training import (
    Background,
    CheckpointDue,
    Interrupted,
    Logged,
    Schedule,
    Steps,
    Stopping,
    TrainState,
    all_finite,
    training_events,
)

# The pictures written with a checkpoint show the mean of p(x|z).
_SHOW = "mean"
_NUM_RECONSTRUCTIONS = 32
ADVICE = "make room, then run the same command again to continue from the last checkpoint"


@dataclasses.dataclass
class TrainingRun:
    """A run that is about to be trained.

    Attributes:
        config: The run, complete.
        folder: Its files.
        data: Its data set.
        model: Its model.
        schedule: When to log, to save and to stop.
        mesh: The devices that share each batch.
        state: Where training starts.
        steps: The compiled steps.
        load_state: Loads the state of the newest sound checkpoint, or makes the state that the run started with.
        check_folder: Raises `UserError` if the folder was moved or deleted.
        score: Of the last measured state; higher is better.
    """

    config: Config
    folder: RunFolder
    data: Dataset
    model: Model
    schedule: Schedule
    mesh: Mesh
    state: TrainState
    steps: Steps
    load_state: Callable[[], TrainState]
    check_folder: Callable[[], None]
    score: float | None = None

    @classmethod
    def prepare(
        cls, config: Config, folder: RunFolder, init_from: str | None, stack: contextlib.ExitStack
    ) -> "TrainingRun":
        """Checks everything before anything is written, then creates or opens the folder and locks it.

        Args:
            config: As the user gave it.
            folder: Of the run.
            init_from: Folder of another run; a new run starts from its variables.
            stack: Holds the lock.

        Raises:
            UserError: If the run can't start.
        """
        data = build.build_data(config)
        config = build.resolve(config)
        build.check_fit(config, data)
        model = build.build_model_for(config, data)
        schedule = build.build_schedule(config, len(data.training.images))
        mesh = batch_mesh(config.train.batch_size)
        folder.check(config)
        folder.check_data(data)
        steps = build.build_steps(config, model, data, schedule, mesh)

        def fresh() -> TrainState:
            return build.build_state(config, model, data.image_shape, schedule.num_steps)

        def initial() -> TrainState:
            state = jax.jit(fresh, out_shardings=replicated(mesh))()
            return state if init_from is None else _with_params_of(init_from, state)

        shapes = jax.eval_shape(fresh)
        if folder.last_step() < schedule.num_steps:
            check_memory(steps.compile(shapes), mesh, config)
        first = initial()
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), first)

        def load_state() -> TrainState:
            saved = _newest_state(folder, like)
            return initial() if saved is None else saved

        # The folder of a new run must stay empty until every process has checked it.
        together("checked")
        # Only the process that writes locks the folder.
        check_folder: Callable[[], None] = lambda: None  # noqa: E731
        if is_writer():
            folder.make()
            check_folder = stack.enter_context(folder.locked())
            folder.check(config)
            # A finished run isn't changed.
            if folder.last_step() < schedule.num_steps:
                folder.start(config, data.kind)
        together("folder")
        newest = _newest_state(folder, like)
        state = first if newest is None else newest
        return cls(config, folder, data, model, schedule, mesh, state, steps, load_state, check_folder)

    @property
    def num_replicas(self) -> int | None:
        """None for a run of one model."""
        return num_replicas(self.config)

    def events(self, request: StopRequest) -> Iterator[Logged | CheckpointDue | Interrupted]:
        """Trains from `state` to the end, or until a stop is requested, and yields the events."""
        images_per_step = self.config.train.batch_size * self.config.num_seeds
        stopping = Stopping(
            lambda: any_process(request.asked),
            lambda: request.asked and jax.process_count() == 1,
            self.steps.steps_per_call,
        )
        return training_events(self.state, self.steps, images_per_step, self.schedule, stopping)

    def is_finite(self, event: Logged | CheckpointDue | Interrupted) -> bool:
        """Whether all metrics of the event, or all numbers of its state, are finite."""
        if isinstance(event, Logged):
            return all(np.all(np.isfinite(value)) for value in event.metrics.values() if value is not None)
        return bool(jax.jit(all_finite)(event.state))

    def rows(self, event: Logged | CheckpointDue | Interrupted) -> list[Row]:
        """The rows of metrics of an event; at a checkpoint those of the validation and test images.

        An interrupted run isn't measured, because it has to stop soon.
        """
        if isinstance(event, Interrupted):
            return []
        if isinstance(event, Logged):
            values = over_replicas(event.metrics, self.num_replicas)
            row = {"step": event.step, "epoch": event.epoch, "split": "train", **values}
            return [{**row, "images_per_second": event.images_per_second}]
        place = {"step": event.step, "epoch": event.step / self.schedule.steps_per_epoch}
        rows = [{**place, **row} for row in self._monitor.rows(jax.device_get(event.state.evaluated))]
        # The reconstruction chooses the best checkpoint where there is no bound.
        scores = [
            row["reconstruction"] if row["elbo"] is None else row["elbo"]
            for row in rows
            if row["split"] == "validation"
        ]
        self.score = scores[0] if scores else None
        return rows

    def keep(self, event: CheckpointDue | Interrupted, background: Background) -> None:
        """Starts to write the checkpoint, after pictures of the first replica if the event was measured.

        Both use a copy of the state, because the next step overwrites the state.
        """
        self.check_folder()
        kept = event._replace(state=_copy(event.state))
        background.start(functools.partial(self._write, kept, self.score))

    def trained_run(self, event: CheckpointDue) -> TrainedModel:
        """The first replica as a trained run, with the parameters of a checkpoint."""
        variables = replica_variables(jax.device_get(event.state.evaluated), self.num_replicas, 0)
        kind, load_data = self.data.kind, lambda: self.data
        return TrainedModel(self.folder, self.config, kind, self.model, variables, event.step, 0, load_data)

    def _write(self, event: CheckpointDue | Interrupted, score: float | None) -> None:
        if isinstance(event, Interrupted):
            score = None
        elif is_writer():
            self._draw(event)
        checkpoints.save(self.folder.checkpoints, event.step, event.state, score, self.config.train.keep_checkpoints)

    def _draw(self, event: CheckpointDue) -> None:
        variables, images = self.trained_run(event).variables, self.folder.images
        if "density" in self.model.traits:
            context = self._images_to_reconstruct.context if self.model.context_size else None
            count = 64 if context is not None else 10 * self.model.context_size or 64
            samples = sample_grid(self.model, variables, count, 0, _SHOW, context=context)
            write_png(images / f"samples_{_SHOW}_{event.step:07d}.png", samples, ADVICE)
        chosen = self._images_to_reconstruct, _NUM_RECONSTRUCTIONS
        picture = reconstruction_grid(self.model, variables, *chosen, _SHOW, 0)
        write_png(images / f"reconstructions_{_SHOW}_{event.step:07d}.png", picture, ADVICE)

    @functools.cached_property
    def _images_to_reconstruct(self) -> Split:
        """The first test images, or the first training images if there is no test part."""
        part = self.data.for_evaluation("test" if len(self.data.part("test").images) else "train")
        part = part.some(slice(_NUM_RECONSTRUCTIONS))
        return dataclasses.replace(part, images=np.asarray(part.images))

    @functools.cached_property
    def _monitor(self) -> Monitor:
        return Monitor(self.config, self.data, self.model)


@jax.jit
def _copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


def _newest_state(folder: RunFolder, like: TrainState) -> TrainState | None:
    """The state of the newest sound checkpoint; damaged checkpoints are reported and skipped."""
    found, damaged = checkpoints.newest_sound(folder.checkpoints)
    if is_writer():
        instead = "training starts anew" if found is None else f"training continues from step {found.step}"
        for place, reason in sorted(damaged.items()):
            say(f"checkpoint {place} is damaged ({reason}); {instead}")
    return None if found is None else checkpoints.load(found, like)


def _with_params_of(init_from: str, fresh: TrainState) -> TrainState:
    """A fresh state with the variables of another run; all replicas get those of a single model."""
    other = RunFolder(pathlib.Path(init_from))
    config = other.read_config()
    saved = checkpoints.load(checkpoints.choose(other.checkpoints, "latest"))
    found = {"params": saved["average"] if saved.get("average") is not None else saved["params"]}
    if saved.get("model_state") is not None:
        found["state"] = saved["model_state"]
    found, wanted = jax.device_get(found), fresh.variables(fresh.params)
    same = jax.tree.structure(found) == jax.tree.structure(wanted)
    if same and config.num_seeds == 1:
        found = jax.tree.map(
            lambda old, new: np.broadcast_to(old, new.shape) if old.shape == new.shape[1:] else old, found, wanted
        )
    theirs, ours = ([leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (found, wanted))
    if not same or theirs != ours:
        raise UserError(f"the parameters in {init_from} have other shapes than this model's; use the same config.model")
    found = jax.tree.map(lambda new, old: put(new, old.sharding), found, wanted)
    params, average = found["params"], None if fresh.average is None else found["params"]
    return dataclasses.replace(fresh, params=params, average=average, model_state=found.get("state"))
