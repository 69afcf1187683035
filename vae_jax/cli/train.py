"""`train`: a run from its config to its last checkpoint, or on from where it was."""

import contextlib
import dataclasses
import math
import pathlib
import time

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from vae_jax import build, checkpoints
from vae_jax.cli.flags import Flags, config_file, define_config, read_config
from vae_jax.cli.listeners import CollapseWatch, Console, MetricsFile, Row, TensorBoard, describe, read_rows
from vae_jax.cli.show import noise_stddev, reconstruction_grid, sample_grid
from vae_jax.config import Config
from vae_jax.data import Data
from vae_jax.errors import UserError
from vae_jax.evaluation import active_units, make_bound, make_posterior_means, map_images
from vae_jax.keys import Stream, stream_key
from vae_jax.numerics import estimate
from vae_jax.pictures import write_png
from vae_jax.runs import RunFolder, command_line, program
from vae_jax.sharding import batch_mesh, replicated
from vae_jax.training import (
    CheckpointDue,
    Logged,
    Schedule,
    TrainState,
    make_run_steps,
    make_train_step,
    training_events,
)
from vae_jax.vae import VAE

_BOUND_SAMPLES = 1
_IMAGES_AT_ONCE = 1000
# Of p(x|z), in the pictures that are made on the way.
_SHOWN = "mean"


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_config(values, arguments)
    name = pathlib.Path(config_file(arguments) or "digits").stem
    flags.DEFINE_string("workdir", f"runs/{name}", "folder of the run; made if it isn't there", flag_values=values)
    flags.DEFINE_string("init_from", None, "folder of a run whose parameters to start from", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    train(read_config(values), pathlib.Path(values["workdir"]), values["init_from"])


def train(config: Config, workdir: pathlib.Path, init_from: str | None = None) -> None:
    """Trains, or continues, the run in a folder.

    Args:
        config: The run.
        workdir: Its folder.
        init_from: Folder of another run whose parameters a new run starts from.

    Raises:
        UserError: For whatever a user can mend; what was saved before stays whole.
    """
    folder = RunFolder(workdir)
    with contextlib.ExitStack() as held:
        session = _Session.prepare(config, folder, init_from, held)
        try:
            _continue(session)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("the same command continues from the last checkpoint") from interrupt


def _continue(session: "_Session") -> None:
    """Trains from where the session's state is."""
    folder, workdir = session.folder, session.folder.root
    folder.add_to_manifest(command_line(), session.data)
    start = int(session.state.step)
    num_steps = session.schedule.num_steps
    if start >= num_steps:
        print(f"{workdir} is finished: {start} steps of {num_steps}. {_last_result(folder)}")
        return
    if start:
        print(f"continuing {workdir} at step {start} of {num_steps}")
    listeners = []
    began = time.perf_counter()
    try:
        metrics = MetricsFile(folder.metrics, start)
        listeners.append(metrics)
        console = Console(start, num_steps)
        watch = CollapseWatch(read_rows(folder.metrics), console.say)
        listeners += [TensorBoard(folder.tensorboard, start), console, watch]
        for event in session.events():
            for row in session.rows(event):
                _check_finite(row)
                for listener in listeners:
                    listener.write(row)
            if isinstance(event, CheckpointDue):
                metrics.sync()
                session.keep(event)
    except OSError as error:
        raise UserError(
            f"{workdir} can't be written ({error.strerror or error}); make room, then run the same command again to "
            "continue from the last checkpoint"
        ) from error
    finally:
        for listener in listeners:
            listener.close()
    print(f"{num_steps - start} steps in {time.perf_counter() - began:.1f} s. {_last_result(folder)}")
    following = "evaluate" if session.model.posterior.has_density else "reconstruct"
    print(f"everything is in {workdir}; next: {program()} {following} --workdir={workdir}")


@dataclasses.dataclass
class _Session:
    """What one start of a run works with."""

    config: Config
    folder: RunFolder
    data: Data
    model: VAE
    schedule: Schedule
    state: TrainState
    mesh: Mesh
    score: float | None = None

    @classmethod
    def prepare(
        cls, config: Config, folder: RunFolder, init_from: str | None, held: contextlib.ExitStack
    ) -> "_Session":
        """Checks everything before anything is written, then starts or opens the folder, and holds its lock."""
        data = build.build_data(config)
        config = build.resolve(config, data)
        build.check_fit(config, data)
        image_shape = data.dataset.image_shape
        model = build.build_model_for(config, data)
        schedule = build.build_schedule(config, len(data.training.images))
        mesh = batch_mesh(config.train.batch_size)
        fresh = jax.jit(
            lambda: build.build_state(config, model, image_shape, schedule.num_steps), out_shardings=replicated(mesh)
        )()
        initial = None if init_from is None else _with_params_of(init_from, fresh)
        folder.start(config)
        held.enter_context(folder.locked())
        state = _latest_state(folder, fresh)
        if state is None:
            state = fresh if initial is None else initial
        return cls(config, folder, data, model, schedule, state, mesh)

    def events(self):
        """The events of training, from where the state is."""
        training = self.data.training
        loss = build.build_loss(self.config, self.model, len(training.images))
        tx = build.build_optimizer(self.config, self.schedule.num_steps, self.schedule.steps_per_epoch)
        train_step = make_train_step(loss, tx, build.build_preparation(self.data), self.config.train.ema_decay)
        images, labels = jax.device_put(
            (training.images, training.labels if self.model.num_classes else None), replicated(self.mesh)
        )
        return training_events(
            self.state,
            make_run_steps(train_step, self.mesh, build.steps_in_one_call(self.model)),
            images,
            labels,
            jax.random.key(self.config.seed),
            self.config.seed,
            self.config.train.batch_size,
            self.schedule,
        )

    def rows(self, event: Logged | CheckpointDue) -> list[Row]:
        """An event as rows of metrics; a checkpoint is measured on the validation and test images."""
        if isinstance(event, Logged):
            return [
                {
                    "step": event.step,
                    "epoch": event.epoch,
                    "split": "train",
                    **event.metrics,
                    "images_per_second": event.images_per_second,
                }
            ]
        rows = []
        for split in ("validation", "test"):
            if len(self.data.part(split).images):
                rows.append(self._measured(split, event))
        # Without a bound the reconstruction is what there is to choose by.
        validation = [
            row["reconstruction"] if row["elbo"] is None else row["elbo"]
            for row in rows
            if row["split"] == "validation"
        ]
        self.score = validation[0] if validation else None
        return rows

    def keep(self, event: CheckpointDue) -> None:
        """Pictures, then the checkpoint itself."""
        params = event.state.evaluated_params
        if self.model.posterior.has_density:
            samples = sample_grid(self.model, params, 10 * self.model.num_classes or 64, 0, _SHOWN)
            write_png(self.folder.images / f"samples_{_SHOWN}_{event.step:07d}.png", samples)
        split = "test" if len(self.data.part("test").images) else "train"
        picture = reconstruction_grid(self.model, params, self.data.for_evaluation(split), 32, _SHOWN, 0)
        write_png(self.folder.images / f"reconstructions_{_SHOWN}_{event.step:07d}.png", picture)
        checkpoints.save(
            self.folder.checkpoints, event.step, event.state, self.score, self.config.train.keep_checkpoints
        )

    def _measured(self, split: str, event: CheckpointDue) -> Row:
        part = self.data.for_evaluation(split)
        mesh = batch_mesh(_IMAGES_AT_ONCE)
        key = stream_key(jax.random.key(self.config.data.seed), Stream.EVALUATION)
        params = jax.device_put(event.state.evaluated_params, replicated(mesh))
        terms = map_images(
            lambda x, ids, label: self._bound(params, x, ids, key, label),
            part.images,
            part.max_value,
            _IMAGES_AT_ONCE,
            mesh,
            part.labels if self.model.num_classes else None,
        )
        means = map_images(
            lambda x, ids, label: self._means(params, x, label),
            part.images,
            part.max_value,
            _IMAGES_AT_ONCE,
            mesh,
            part.labels if self.model.num_classes else None,
        )
        reconstruction = estimate(terms.reconstruction)
        elbo = None if terms.elbo is None else estimate(terms.elbo)
        return {
            "step": event.step,
            "epoch": event.step / self.schedule.steps_per_epoch,
            "split": split,
            "elbo": None if elbo is None else elbo.mean,
            "elbo_standard_error": None if elbo is None else elbo.standard_error_images,
            "reconstruction": reconstruction.mean,
            "kl": None if terms.kl is None else float(np.mean(terms.kl, dtype=np.float64)),
            "noise_stddev": noise_stddev(self.model, event.state.evaluated_params),
            "active_units": len(active_units(means)),
            "num_images": reconstruction.num_images,
        }

    def __post_init__(self) -> None:
        self._bound = make_bound(self.model, _BOUND_SAMPLES)
        self._means = make_posterior_means(self.model)


def _check_finite(row: Row) -> None:
    """Stops a run that has gone astray before it writes that down, or saves it."""
    for name in ("loss", "reconstruction", "kl"):
        value = row.get(name)
        if value is not None and not math.isfinite(value):
            raise UserError(
                f"training has diverged: {name} of the {row['split']} images is {value} at step {row['step']}; the "
                "checkpoints up to here are sound. Start anew with a smaller --config.train.learning_rate, with "
                "--config.train.clip_norm or with --config.train.warmup_steps"
            )


def _latest_state(folder: RunFolder, like: TrainState) -> TrainState | None:
    """The state of the newest sound checkpoint; damaged ones are named and passed over."""
    for checkpoint in reversed(checkpoints.listing(folder.checkpoints)):
        wrong = checkpoints.damage(checkpoint)
        if wrong is None:
            return checkpoints.load(checkpoint, like)
        print(f"checkpoint {checkpoint.folder} is damaged ({wrong}); going back to an earlier one")
    return None


def _with_params_of(init_from: str, fresh: TrainState) -> TrainState:
    other = RunFolder(pathlib.Path(init_from))
    other.read_config()
    saved = checkpoints.load(checkpoints.choose(other.checkpoints, "latest"))
    params = saved["average"] if saved.get("average") is not None else saved["params"]
    ours, theirs = (jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (fresh.params, params))
    if ours != theirs:
        raise UserError(f"the parameters in {init_from} have other shapes than this model's; use the same config.model")
    params = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), params, fresh.params)
    return dataclasses.replace(fresh, params=params, average=None if fresh.average is None else params)


def _last_result(folder: RunFolder) -> str:
    rows = [row for row in read_rows(folder.metrics) if row["split"] != "train"]
    return describe(rows[-1]) if rows else ""
