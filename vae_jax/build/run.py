"""Data, optimizer, schedule and state of a run."""

import dataclasses
import os
from collections.abc import Callable, Mapping

import jax
import optax

from vae_jax.build.model import ImageShape, build_model_for
from vae_jax.build.objective import check_objective
from vae_jax.build.registry import choose
from vae_jax.config import Config
from vae_jax.data import (
    BINARIZATIONS,
    Data,
    Dataset,
    dynamic_binarization,
    load_digits,
    load_npz,
    load_tfds,
    scaled,
)
from vae_jax.errors import UserError
from vae_jax.keys import Stream, stream_key
from vae_jax.training import (
    OPTIMIZERS,
    SCHEDULES,
    Preparation,
    Schedule,
    TrainState,
    create_state,
    make_optimizer,
)
from vae_jax.vae import VAE, init_params

SOURCES: Mapping[str, Callable[[Config], Dataset]] = {
    "digits": lambda config: load_digits(config.data.test_fraction, config.data.seed),
    "tfds": lambda config: load_tfds(config.data.name, config.data.dir or None),
    "npz": lambda config: load_npz(config.data.path, config.data.test_fraction, config.data.seed),
}


def build_data(config: Config) -> Data:
    """Loads the data set and decides its splits and binarization."""
    choose("data.binarization", config.data.binarization, dict.fromkeys(BINARIZATIONS))
    dataset = choose("data.source", config.data.source, SOURCES)(config)
    return Data(dataset, config.data.binarization, config.data.validation_fraction, config.data.seed)


def resolve(config: Config, data: Data) -> Config:
    """Fills in what follows from the data and the place, so that the saved config is complete.

    A path that is saved whole leads to the data from any folder.
    """
    data_config = dataclasses.replace(config.data, path=_whole_path(config.data.path), dir=_whole_path(config.data.dir))
    config = dataclasses.replace(config, data=data_config)
    if config.model.likelihood == "mse" and config.model.mse_kl_weight == 0.0:
        ratio = config.train.batch_size / len(data.training.images)
        return dataclasses.replace(config, model=dataclasses.replace(config.model, mse_kl_weight=ratio))
    return config


def _whole_path(path: str) -> str:
    """Absolute, but for no path at all and for one into a cloud's storage."""
    return path if not path or "://" in path else os.path.abspath(os.path.expanduser(path))


def check_fit(config: Config, data: Data) -> None:
    """Refuses what doesn't go together.

    Raises:
        UserError: If the likelihood is no density of such pixels, the objective needs what the posterior
            doesn't have, labels are missing, or a batch is larger than the data.
    """
    model = build_model_for(config, data)
    pixels = "binary" if data.is_binary else "levels"
    if pixels not in model.likelihood.fits:
        instead = (
            "set data.binarization to none, or model.likelihood to bernoulli"
            if data.is_binary
            else "set data.binarization to dynamic, fixed or threshold, or model.likelihood to gaussian_learned or "
            "discretized_logistic"
        )
        raise UserError(
            f"model.likelihood '{config.model.likelihood}' is no density of the pixels that data.binarization "
            f"'{config.data.binarization}' gives ({pixels}); {instead}"
        )
    if config.model.conditional and not data.num_classes:
        raise UserError("model.conditional needs class labels, but the data has none; set it to False")
    num_images = len(data.training.images)
    check_objective(config, model, num_images)
    if config.train.batch_size > num_images:
        raise UserError(
            f"train.batch_size is {config.train.batch_size} but there are {num_images} training images; "
            f"use at most {num_images}"
        )


def build_preparation(data: Data) -> Preparation:
    """What turns training images into the x of the model, inside the compiled step."""
    max_value = data.training.max_value
    if data.is_dynamic:
        return lambda images, key: dynamic_binarization(images, max_value, key)
    return lambda images, key: scaled(images, max_value)


def build_schedule(config: Config, num_images: int) -> Schedule:
    """When to log, to save and to stop.

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


def build_optimizer(config: Config, num_steps: int, steps_per_epoch: int = 1) -> optax.GradientTransformation:
    """The optimizer for so many steps, which make up epochs."""
    train = config.train
    choose("train.optimizer", train.optimizer, OPTIMIZERS)
    choose("train.schedule", train.schedule, dict.fromkeys(SCHEDULES))
    return make_optimizer(
        train.optimizer,
        train.learning_rate,
        num_steps,
        train.schedule,
        train.warmup_steps,
        train.clip_norm,
        train.adam_epsilon,
        steps_per_epoch,
    )


def steps_in_one_call(model: VAE) -> bool:
    """Whether many steps of a model are best made in one compiled call; see `make_run_steps`."""
    convolutional = getattr(model.encoder, "convolutional", False) or getattr(model.decoder, "convolutional", False)
    return not (convolutional and jax.default_backend() == "cpu")


def build_state(config: Config, model: VAE, image_shape: ImageShape, num_steps: int) -> TrainState:
    """A fresh state, before the first step."""
    params = init_params(model, stream_key(jax.random.key(config.seed), Stream.PARAMETERS), image_shape)
    return create_state(params, build_optimizer(config, num_steps), config.train.ema_decay > 0)
