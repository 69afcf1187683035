"""From a config to the data, optimizer, schedule, steps and state of a run."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Key

from vae_jax.build.model import ImageShape, build_model_for
from vae_jax.build.objective import build_loss, build_players, check_objective
from vae_jax.build.parts import resolve_parts
from vae_jax.build.registry import choose_or_import, custom_errors, make_part
from vae_jax.config import SEEDS, Config
from vae_jax.data import Dataset, dynamic_binarization, load_digits, load_folder, load_npz, load_tfds, scaled
from vae_jax.data.decoding import Sizing
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import UserError
from vae_jax.keys import Stream, stream_key
from vae_jax.models import Batch, Model, init_variables
from vae_jax.shapes import RandomKey
from vae_jax.training import (
    OPTIMIZERS,
    REPLICA_AXES,
    BatchOrder,
    Preparation,
    ResidentSteps,
    Schedule,
    Steps,
    StreamedSteps,
    TrainState,
    TrainStep,
    create_state,
    make_optimizer,
    make_train_step,
    replicate,
    with_players,
    with_their_optimizers,
)


def _sizing(config: Config) -> Sizing:
    return Sizing(config.data.image_size, config.data.image_fit)


SOURCES: Mapping[str, Callable[[Config], Dataset]] = {
    "digits": lambda config: load_digits(config.data.test_fraction, config.data.seed),
    "tfds": lambda config: load_tfds(
        config.data.name, config.data.dir or None, _sizing(config), config.data.resident_mb
    ),
    "npz": lambda config: load_npz(
        config.data.path, config.data.test_fraction, config.data.seed, config.data.resident_mb
    ),
    "folder": lambda config: load_folder(
        config.data.dir,
        config.data.test_fraction,
        config.data.seed,
        _sizing(config),
        config.data.resident_mb,
        config.data.unreadable,
        config.data.labels,
        config.data.context,
    ),
}


def build_data(config: Config) -> Dataset:
    """Loads the data set that the config names."""
    source = config.data.source
    for field, sources in {"image_size": ("folder", "tfds"), "labels": ("folder",)}.items():
        if getattr(config.data, field) and source in SOURCES and source not in sources:
            raise UserError(
                f"data.{field} has no effect on data.source '{source}'; leave it out, or use {' or '.join(sources)}"
            )
    load = choose_or_import("data.source", source, SOURCES)
    with custom_errors({"data.source": source}):
        dataset = load(config)
    if not isinstance(dataset, Dataset):
        raise UserError(f"'data.source' {source!r} gives a {type(dataset).__name__}; a vae_jax.data.Dataset is needed")
    return with_config(dataset, config)


def with_config(dataset: Dataset, config: Config) -> Dataset:
    """The data set with the config's binarization, validation fraction and seed."""
    data = config.data
    return dataclasses.replace(
        dataset, binarization=data.binarization, validation_fraction=data.validation_fraction, seed=data.seed
    )


def resolve(config: Config) -> Config:
    """The config with all settings of its parts, and absolute paths to the data: what a run keeps.

    Raises:
        UserError: For a wrong name or setting of a part.
    """

    def absolute(path: str) -> str:
        return path if not path or "://" in path else os.path.abspath(os.path.expanduser(path))

    places = {name: absolute(getattr(config.data, name)) for name in ("path", "dir", "labels")}
    data = dataclasses.replace(config.data, **places)
    return dataclasses.replace(resolve_parts(config), data=data)


def check_fit(config: Config, data: Dataset) -> None:
    """Refuses combinations that can't work.

    Raises:
        UserError: If the likelihood isn't a density of such pixels, the objective needs what the posterior doesn't
            have, a custom part fails, labels are missing, or a batch is larger than the data.
    """
    if data.is_binary and data.values != "levels":
        raise UserError(
            f"data.binarization '{config.data.binarization}' is for levels of pixels, and {data.name} has "
            f"{data.values} values; set --config.data.binarization=none"
        )
    model = build_model_for(config, data)
    pixels = "binary" if data.is_binary else data.values
    if pixels not in model.support:
        raise UserError(
            f"model.likelihood '{config.model.likelihood}' isn't a density of the pixels that data.binarization "
            f"'{config.data.binarization}' gives ({pixels}); {INSTEAD[pixels]}"
        )
    if config.model.conditional and not model.context_size:
        raise UserError("model.conditional needs class labels or contexts, but the data has none; set it to False")
    num_images = len(data.training.images)
    check_objective(config, model, num_images, data.image_shape)
    if config.train.batch_size % config.train.accumulation:
        raise UserError(
            f"train.accumulation is {config.train.accumulation} but must divide train.batch_size, which is "
            f"{config.train.batch_size}"
        )
    if config.seed + config.num_seeds > SEEDS:
        raise UserError(
            f"seed {config.seed} with num_seeds {config.num_seeds} goes beyond the last seed, {SEEDS - 1}; lower one"
        )
    if config.train.batch_size > num_images:
        raise UserError(
            f"train.batch_size is {config.train.batch_size} but the data ({data.name}) has {num_images} "
            f"training images; use at most {num_images}: --config.train.batch_size={num_images}"
        )


INSTEAD = {
    "binary": "set data.binarization to none, or model.likelihood to bernoulli",
    "levels": "set data.binarization to dynamic, fixed or threshold, or model.likelihood to discretized_logistic or "
    "gaussian(learned=True)",
    "continuous": "set model.likelihood to gaussian(learned=True) or continuous_bernoulli",
    "real": "set model.likelihood to gaussian(learned=True)",
    "counts": "set model.likelihood to poisson",
}


def build_preparation(data: Dataset) -> Preparation:
    """The function from stored training images to what the model sees, inside the compiled step."""
    max_value = data.training.max_value

    def prepare(images: Any, given: Any, key: RandomKey) -> Batch:
        x = dynamic_binarization(images, max_value, key) if data.is_dynamic else scaled(images, max_value)
        batch = Batch(x, context=given)
        return batch.masked() if data.has_missing else batch

    return prepare


def build_schedule(config: Config, num_images: int) -> Schedule:
    """When to log, save and stop.

    Args:
        config: The run.
        num_images: Training images.
    """
    train = config.train
    steps_per_epoch = num_images // train.batch_size
    return Schedule(
        num_steps=train.num_steps or train.num_epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every or steps_per_epoch,
    )


def build_optimizer(
    config: Config, model: Model, num_steps: int, steps_per_epoch: int = 1, learning_rate: Any = None
) -> optax.GradientTransformation:
    """The optimizer of all players for this many steps; `learning_rate` replaces that of the config."""
    train = config.train
    tx = make_optimizer(
        make_part("train.optimizer", train.optimizer, OPTIMIZERS),
        train.learning_rate if learning_rate is None else learning_rate,
        num_steps,
        train.schedule,
        train.warmup_steps,
        train.clip_norm,
        steps_per_epoch,
    )
    return with_their_optimizers(tx, build_players(config, model))


def must_unroll(model: Model) -> bool:
    """Whether steps and replicas run one after the other here; see `ResidentSteps` and `replicate`."""
    return jax.default_backend() == "cpu" and "unroll_on_cpu" in model.traits


def seeds_of(config: Config) -> tuple[int, ...]:
    """The seeds of the replicas, `seed + i`; one for a run without replicas."""
    return tuple(range(config.seed, config.seed + config.num_seeds))


def build_train_step(
    config: Config, model: Model, schedule: Schedule, preparation: Preparation, num_images: int
) -> TrainStep:
    """The training step of one model, or of all replicas at once.

    Args:
        config: The run.
        model: Its model.
        schedule: Its length, for the learning rate.
        preparation: From `build_preparation`.
        num_images: Training images, for objectives that refer to the whole data set.
    """
    step = make_train_step(
        build_loss(config, model, num_images),
        build_optimizer(config, model, schedule.num_steps, schedule.steps_per_epoch),
        preparation,
        config.train.ema_decay,
        config.train.accumulation,
        config.train.skip_nonfinite,
    )
    return replicate(step, must_unroll(model)) if config.num_seeds > 1 else step


def build_steps(config: Config, model: Model, data: Dataset, schedule: Schedule, mesh: Mesh) -> Steps:
    """The steps of a run on its training images, in memory or streamed."""
    training = data.training
    images, given = training.images, training.given if model.context_size else None
    step = build_train_step(config, model, schedule, build_preparation(data), len(images))
    order = BatchOrder(seeds_of(config), config.train.batch_size, len(images))
    if isinstance(images, StreamedImages):
        reading = config.data.workers, config.data.prefetch
        return StreamedSteps(step, mesh, images, given, order, schedule.num_steps, *reading)
    return ResidentSteps(step, mesh, images, given, order, schedule.longest, must_unroll(model))


def fresh_state(
    config: Config, model: Model, image_shape: ImageShape, tx: optax.GradientTransformation, key: RandomKey
) -> TrainState:
    """The state of one model before the first step; `key` is that of the run."""
    key = stream_key(key, Stream.PARAMETERS)
    variables = with_players(init_variables(model, key, image_shape), build_players(config, model), key)
    return create_state(variables, tx, config.train.ema_decay > 0)


def build_state(config: Config, model: Model, image_shape: ImageShape, num_steps: int) -> TrainState:
    """The state before the first step, with an axis for replicas in front if there are any."""

    def of_key(key: Key[Array, ""]) -> TrainState:
        return fresh_state(config, model, image_shape, build_optimizer(config, model, num_steps), key)

    keys = [jax.random.key(seed) for seed in seeds_of(config)]
    return jax.vmap(of_key, out_axes=REPLICA_AXES)(jnp.stack(keys)) if len(keys) > 1 else of_key(keys[0])
