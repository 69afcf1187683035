"""What one start of a run works with: data, model, steps and state, and what is measured and kept on the way."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vae_jax import build, checkpoints
from vae_jax.cli.listeners import Row
from vae_jax.cli.memory import check_memory
from vae_jax.cli.show import noise_stddev, reconstruction_grid, sample_grid
from vae_jax.cli.signals import StopRequest
from vae_jax.cli.terminal import say
from vae_jax.config import Config
from vae_jax.data import Dataset, Split
from vae_jax.data.dataset import Labels
from vae_jax.errors import UserError
from vae_jax.evaluation import Watched, active_units, make_bound, map_images
from vae_jax.evaluation.batches import Pixels
from vae_jax.keys import Stream, stream_key
from vae_jax.numerics import estimate
from vae_jax.pictures import write_png
from vae_jax.processes import any_process, is_writer, together
from vae_jax.runs import RunFolder
from vae_jax.sharding import batch_mesh, filled_up, put, replicated, whole_mesh
from vae_jax.trained import TrainedRun, replica_params
from vae_jax.training import (
    Background,
    CheckpointDue,
    Interrupted,
    Logged,
    ResidentSteps,
    Schedule,
    Stopping,
    StreamedSteps,
    TrainState,
    all_finite,
    training_events,
)
from vae_jax.vae import VAE

_BOUND_SAMPLES = 1
_IMAGES_AT_ONCE = 1000
# Of p(x|z), in the pictures that are made on the way.
_SHOWN = "mean"
_RECONSTRUCTED = 32
_MEASURED = ("validation", "test")
_MEND = "make room, then run the same command again to continue from the last checkpoint"


class _Evaluated(NamedTuple):
    images: Pixels
    max_value: int
    labels: Labels | None


@dataclasses.dataclass
class Session:
    """One start of a run.

    Attributes:
        config: The run, complete.
        folder: Its files.
        data: What it trains on.
        model: The model.
        schedule: When things happen.
        mesh: Its devices share each batch.
        state: Where training starts.
        run_steps: Compiled.
        restart: Gives the state of the newest sound checkpoint, or the one that the run began with.
        check_there: Raises `UserError` once the folder is no longer where it was.
        score: Of the last measured state; higher is better.
    """

    config: Config
    folder: RunFolder
    data: Dataset
    model: VAE
    schedule: Schedule
    mesh: Mesh
    state: TrainState
    run_steps: ResidentSteps | StreamedSteps
    restart: Callable[[], TrainState]
    check_there: Callable[[], None]
    score: float | None = None

    @classmethod
    def prepare(cls, config: Config, folder: RunFolder, init_from: str | None, held: contextlib.ExitStack) -> "Session":
        """Checks everything before anything is written, then starts or opens the folder, and holds its lock.

        Args:
            config: As the user gave it.
            folder: Of the run.
            init_from: Folder of another run whose parameters a new run starts from.
            held: Holds the lock.

        Raises:
            UserError: If the run can't be.
        """
        data = build.build_data(config)
        config = build.resolve(config)
        build.check_fit(config, data)
        model = build.build_model_for(config, data)
        schedule = build.build_schedule(config, len(data.training.images))
        mesh = batch_mesh(config.train.batch_size)
        folder.check(config)
        folder.check_images(data.kind)
        if is_writer():
            folder.warn_of_other_data(data)
        steps = build.build_steps(config, model, data, schedule, mesh)

        def fresh() -> TrainState:
            return build.build_state(config, model, data.image_shape, schedule.num_steps)

        if folder.last_step() < schedule.num_steps:
            shapes = jax.eval_shape(fresh)
            check_memory(steps.compile(shapes), mesh, config)

        def initial() -> TrainState:
            state = jax.jit(fresh, out_shardings=replicated(mesh))()
            return state if init_from is None else _with_params_of(init_from, state)

        first = initial()

        def restart() -> TrainState:
            saved = _latest_state(folder, like)
            return initial() if saved is None else saved

        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), first)
        # The folder of a new run is to be empty until every process has seen that it is.
        together("checked")
        check_there = _nothing_to_check
        if is_writer():
            folder.make()
            check_there = held.enter_context(folder.locked())
            folder.check(config)
            # A finished run stays as it is, whatever it is asked for.
            if folder.last_step() < schedule.num_steps:
                folder.start(config, data.kind)
        together("folder")
        latest = _latest_state(folder, like)
        state = first if latest is None else latest
        return cls(config, folder, data, model, schedule, mesh, state, steps, restart, check_there)

    @property
    def num_replicas(self) -> int | None:
        """None for a run of one model."""
        return self.config.num_seeds if self.config.num_seeds > 1 else None

    def events(self, request: StopRequest) -> Iterator[Logged | CheckpointDue | Interrupted]:
        """The events of training, from where the state is to its end or until somebody asks for another."""
        images_per_step = self.config.train.batch_size * self.config.num_seeds
        stopping = Stopping(
            lambda: any_process(request.asked),
            lambda: request.asked and jax.process_count() == 1,
            self.run_steps.steps_per_call,
        )
        return training_events(self.state, self.run_steps, images_per_step, self.schedule, stopping)

    def is_finite(self, event: Logged | CheckpointDue | Interrupted) -> bool:
        """Whether all numbers of an event are: metrics, or a state that is to be kept."""
        if isinstance(event, Logged):
            return all(np.all(np.isfinite(value)) for value in event.metrics.values() if value is not None)
        return bool(jax.jit(all_finite)(event.state))

    def rows(self, event: Logged | CheckpointDue | Interrupted) -> list[Row]:
        """An event as rows of metrics; a checkpoint is measured on the validation and test images.

        Not so one on which a run was interrupted: who asks for that may not wait long.
        """
        if isinstance(event, Interrupted):
            return []
        if isinstance(event, Logged):
            values = over_replicas(event.metrics, self.num_replicas)
            row = {"step": event.step, "epoch": event.epoch, "split": "train", **values}
            return [{**row, "images_per_second": event.images_per_second}]
        params = jax.device_get(event.state.evaluated_params)
        rows = [self._measured(split, event, params) for split in self._evaluated]
        # Without a bound the reconstruction is what there is to choose by.
        validation = [
            row["reconstruction"] if row["elbo"] is None else row["elbo"]
            for row in rows
            if row["split"] == "validation"
        ]
        self.score = validation[0] if validation else None
        return rows

    def keep(self, event: CheckpointDue | Interrupted, background: Background) -> None:
        """Starts to write pictures, of the first replica, if the event was measured, and then the checkpoint.

        Both come from a copy of the state, which the next step overwrites.
        """
        self.check_there()
        kept = event._replace(state=_copy(event.state))
        background.start(functools.partial(self._write, kept, self.score))

    def _write(self, event: CheckpointDue | Interrupted, score: float | None) -> None:
        if isinstance(event, Interrupted):
            score = None
        elif is_writer():
            self._draw(event)
        checkpoints.save(self.folder.checkpoints, event.step, event.state, score, self.config.train.keep_checkpoints)

    def trained(self, event: CheckpointDue) -> TrainedRun:
        """The run as other verbs see it after a checkpoint: the first replica."""
        params = replica_params(jax.device_get(event.state.evaluated_params), self.num_replicas, 0)
        kind, load_data = self.data.kind, lambda: self.data
        return TrainedRun(self.folder, self.config, kind, self.model, params, event.step, 0, load_data)

    def _draw(self, event: CheckpointDue) -> None:
        params = self.trained(event).params
        if self.model.posterior.has_density:
            samples = sample_grid(self.model, params, 10 * self.model.num_classes or 64, 0, _SHOWN)
            write_png(self.folder.images / f"samples_{_SHOWN}_{event.step:07d}.png", samples, _MEND)
        picture = reconstruction_grid(self.model, params, self._reconstructed, _RECONSTRUCTED, _SHOWN, 0)
        write_png(self.folder.images / f"reconstructions_{_SHOWN}_{event.step:07d}.png", picture, _MEND)

    @functools.cached_property
    def _reconstructed(self) -> Split:
        """The first images of the test part, or of the training part where there is none."""
        part = self.data.for_evaluation("test" if len(self.data.part("test").images) else "train")
        labels = None if part.labels is None else part.labels[:_RECONSTRUCTED]
        return Split(np.asarray(part.images[:_RECONSTRUCTED]), labels, part.max_value)

    @functools.cached_property
    def _evaluated(self) -> dict[str, "_Evaluated"]:
        """The measured parts: on the devices, if they fit into `data.resident_mb` beside the training images."""
        parts = {split: self.data.for_evaluation(split) for split in _MEASURED if len(self.data.part(split).images)}
        num_bytes = sum(part.images.nbytes for part in (self.data.training, *parts.values()))
        fits, everywhere = num_bytes <= self.config.data.resident_mb * 2**20, replicated(whole_mesh())
        return {
            split: _Evaluated(
                put(np.asarray(part.images), everywhere) if fits else part.images,
                part.max_value,
                part.labels if self.model.num_classes else None,
            )
            for split, part in parts.items()
        }

    @functools.cached_property
    def _bound(self):
        return make_bound(self.model, _BOUND_SAMPLES, self.num_replicas is not None, build.must_unroll(self.model))

    def _measured(self, split: str, event: CheckpointDue, params) -> Row:
        part, mesh = self._evaluated[split], whole_mesh()
        everywhere = replicated(mesh)
        key = jax.jit(
            lambda: stream_key(jax.random.key(self.config.data.seed), Stream.EVALUATION), out_shardings=everywhere
        )()
        on_devices = put(params, everywhere)
        watched: Watched = map_images(
            lambda x, ids, label: self._bound(on_devices, x, ids, key, label),
            part.images,
            part.max_value,
            filled_up(max(1, _IMAGES_AT_ONCE // self.config.num_seeds), mesh),
            mesh,
            part.labels,
        )
        terms = watched.terms
        axis = () if self.num_replicas is None else (1,)
        elbo = None if terms.elbo is None else estimate(terms.elbo.mean(axis=axis))
        means = {
            name: None if values is None else np.mean(values, axis=0, dtype=np.float64)
            for name, values in terms._asdict().items()
        }
        row = over_replicas(means, self.num_replicas)
        each = range(self.config.num_seeds)
        stddevs = [noise_stddev(self.model, replica_params(params, self.num_replicas, index)) for index in each]
        stddevs = [stddev for stddev in stddevs if stddev is not None]
        means_of_z = np.asarray(watched.means)
        active = [
            len(active_units(means_of_z if self.num_replicas is None else means_of_z[:, index])) for index in each
        ]
        return {
            "step": event.step,
            "epoch": event.step / self.schedule.steps_per_epoch,
            "split": split,
            **row,
            "elbo_standard_error": None if elbo is None else elbo.standard_error_images,
            "noise_stddev": float(np.mean(stddevs)) if stddevs else None,
            "active_units": active[0] if self.num_replicas is None else float(np.mean(active)),
            "num_images": len(part.images),
        }


def over_replicas(means: dict[str, Any], num_replicas: int | None) -> Row:
    """Metrics as a row: means over the replicas, their standard deviations, and each of them.

    Args:
        means: Arrays over the replicas, or scalars where there are none.
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


@jax.jit
def _copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


def _nothing_to_check() -> None:
    """Of all processes only the one that writes holds the folder."""


def _latest_state(folder: RunFolder, like: TrainState) -> TrainState | None:
    """The state of the newest sound checkpoint; damaged ones are named and passed over."""
    found, wrong = checkpoints.newest_sound(folder.checkpoints)
    if is_writer():
        instead = "training starts anew" if found is None else f"training goes on from step {found.step}"
        for place, reason in sorted(wrong.items()):
            say(f"checkpoint {place} is damaged ({reason}); {instead}")
    return None if found is None else checkpoints.load(found, like)


def _with_params_of(init_from: str, fresh: TrainState) -> TrainState:
    """A fresh state with the parameters of another run; those of a single model for all replicas, if need be."""
    other = RunFolder(pathlib.Path(init_from))
    config = other.read_config()
    saved = checkpoints.load(checkpoints.choose(other.checkpoints, "latest"))
    params = jax.device_get(saved["average"] if saved.get("average") is not None else saved["params"])
    if config.num_seeds == 1:
        params = jax.tree.map(
            lambda old, new: np.broadcast_to(old, new.shape) if old.shape == new.shape[1:] else old,
            params,
            fresh.params,
        )
    ours, theirs = (jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (fresh.params, params))
    if ours != theirs:
        raise UserError(f"the parameters in {init_from} have other shapes than this model's; use the same config.model")
    params = jax.tree.map(lambda new, old: put(new, old.sharding), params, fresh.params)
    return dataclasses.replace(fresh, params=params, average=None if fresh.average is None else params)
