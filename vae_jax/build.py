"""From a config to its parts: the only registry of names.

A name is one of ours, or `package.module:Name` for one's own: a callable that takes what the builder of
the same kind below takes.
"""

import difflib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import optax

from vae_jax import data as data_module
from vae_jax.config import Config, ModelConfig
from vae_jax.data import binarization
from vae_jax.errors import UserError
from vae_jax.keys import Stream, stream_key
from vae_jax.likelihoods import Bernoulli, Gaussian
from vae_jax.networks import MLPDecoder, MLPEncoder
from vae_jax.objectives import Elbo
from vae_jax.posteriors import DiagonalGaussian
from vae_jax.priors import StandardNormal
from vae_jax.training import OPTIMIZERS, SCHEDULES, Schedule, TrainState, create_state, make_optimizer
from vae_jax.training.step import LossFunction, Preparation
from vae_jax.vae import VAE, init_params

ImageShape = tuple[int, int, int]

ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "gelu": nn.gelu, "silu": nn.silu}


def _mlp(model: ModelConfig, image_shape: ImageShape) -> tuple[nn.Module, nn.Module]:
    activation = choose("model.activation", model.activation, ACTIVATIONS)
    return (
        MLPEncoder(model.hidden, activation),
        MLPDecoder(model.hidden[::-1], image_shape, activation),
    )


NETWORKS: Mapping[str, Callable[[ModelConfig, ImageShape], tuple[nn.Module, nn.Module]]] = {"mlp": _mlp}
LIKELIHOODS: Mapping[str, Callable[[ModelConfig], nn.Module]] = {
    "bernoulli": lambda model: Bernoulli(),
    "gaussian": lambda model: Gaussian(model.likelihood_stddev),
    "gaussian_learned": lambda model: Gaussian(model.likelihood_stddev, learned=True),
}
POSTERIORS: Mapping[str, Callable[[ModelConfig], nn.Module]] = {
    "diagonal_gaussian": lambda model: DiagonalGaussian(model.latents),
}
PRIORS: Mapping[str, Callable[[ModelConfig], nn.Module]] = {
    "standard_normal": lambda model: StandardNormal(model.latents),
}
OBJECTIVES: Mapping[str, Callable[[Config], Any]] = {
    "elbo": lambda config: Elbo(config.objective.num_samples, config.objective.analytic_kl),
}
SOURCES: Mapping[str, Callable[[Config], data_module.Dataset]] = {
    "digits": lambda config: data_module.load_digits(config.data.test_fraction, config.data.seed),
    "tfds": lambda config: data_module.load_tfds(config.data.name, config.data.dir or None),
    "npz": lambda config: data_module.load_npz(config.data.path, config.data.test_fraction, config.data.seed),
}


def choose(field: str, name: str, members: Mapping[str, Any]) -> Any:
    """The member of that name, or the object that `package.module:Name` leads to.

    Raises:
        UserError: If there is none, with the closest name there is.
    """
    if name in members:
        return members[name]
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(f"config field '{field}' is {name!r}, which can't be imported: {error}") from error
    close = difflib.get_close_matches(name, members, n=1, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise UserError(f"config field '{field}' is {name!r}; {hint}choose from {', '.join(members)}")


def build_data(config: Config) -> data_module.Data:
    """Loads the data set and decides its splits and binarization."""
    choose("data.binarization", config.data.binarization, dict.fromkeys(data_module.BINARIZATIONS))
    dataset = choose("data.source", config.data.source, SOURCES)(config)
    return data_module.Data(dataset, config.data.binarization, config.data.validation_fraction, config.data.seed)


def build_model(config: ModelConfig, image_shape: ImageShape) -> VAE:
    """The model for images of a shape.

    Args:
        config: Which parts, and how large.
        image_shape: Height, width, channels.
    """
    height, width, channels = image_shape
    likelihood = choose("model.likelihood", config.likelihood, LIKELIHOODS)(config)
    outputs = (height, width, likelihood.outputs_per_pixel(channels))
    encoder, decoder = choose("model.network", config.network, NETWORKS)(config, outputs)
    return VAE(
        encoder=encoder,
        posterior=choose("model.posterior", config.posterior, POSTERIORS)(config),
        prior=choose("model.prior", config.prior, PRIORS)(config),
        decoder=decoder,
        likelihood=likelihood,
    )


def check_fit(config: Config, data: data_module.Data) -> None:
    """Refuses what doesn't go together.

    Raises:
        UserError: If the likelihood is no density of such pixels, or a batch is larger than the data.
    """
    likelihood = choose("model.likelihood", config.model.likelihood, LIKELIHOODS)(config.model)
    if likelihood.measure == "binary" and not data.is_binary:
        raise UserError(
            f"model.likelihood '{config.model.likelihood}' is a density of 0/1 pixels, but data.binarization is "
            "'none'; use data.binarization dynamic, fixed or threshold, or model.likelihood gaussian_learned"
        )
    num_images = len(data.training.images)
    if config.train.batch_size > num_images:
        raise UserError(
            f"train.batch_size is {config.train.batch_size} but there are {num_images} training images; "
            f"use at most {num_images}"
        )


def build_loss(config: Config, model: VAE) -> LossFunction:
    """The objective of a model as a function of its parameters."""
    objective = choose("objective.name", config.objective.name, OBJECTIVES)(config)
    return lambda params, x, key, step: objective(model, params, x, key, step)


def build_preparation(data: data_module.Data) -> Preparation:
    """What turns training images into the x of the model, inside the compiled step."""
    max_value = data.training.max_value
    if data.is_dynamic:
        return lambda images, key: binarization.dynamic_binarization(images, max_value, key)
    return lambda images, key: binarization.scaled(images, max_value)


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


def build_optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
    """The optimizer for so many steps."""
    train = config.train
    choose("train.optimizer", train.optimizer, OPTIMIZERS)
    choose("train.schedule", train.schedule, dict.fromkeys(SCHEDULES))
    return make_optimizer(
        train.optimizer, train.learning_rate, num_steps, train.schedule, train.warmup_steps, train.clip_norm
    )


def build_state(config: Config, model: VAE, image_shape: ImageShape, num_steps: int) -> TrainState:
    """A fresh state, before the first step."""
    params = init_params(model, stream_key(jax.random.key(config.seed), Stream.PARAMETERS), image_shape)
    return create_state(params, build_optimizer(config, num_steps), config.train.ema_decay > 0)
