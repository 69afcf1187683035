"""From the objective section of a config to an objective, checked against the model."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.build.model import ImageShape, part_names
from vae_jax.build.registry import choose, custom_errors, is_custom, make
from vae_jax.config import Config, ObjectiveConfig
from vae_jax.errors import UserError
from vae_jax.models import Batch, Model, init_variables
from vae_jax.objectives import (
    ANNEALINGS,
    GRADIENTS,
    Autoencoder,
    BetaTcvae,
    Capacity,
    Dreg,
    Elbo,
    FreeBits,
    Iwae,
    Mmd,
    Objective,
    Penalty,
    WakeSleep,
    Weighted,
)
from vae_jax.training import LossFunction


def _elbo(config: Config, penalty: Penalty) -> Elbo:
    objective = config.objective
    gradient = choose("objective.gradient", objective.gradient, GRADIENTS)
    return Elbo(objective.num_samples, objective.analytic_kl, penalty, gradient)


def _beta(config: Config) -> Elbo:
    objective = config.objective
    annealing = choose("objective.annealing", objective.annealing, ANNEALINGS)
    if annealing == "cyclical" and not objective.annealing_steps:
        raise UserError("objective.annealing 'cyclical' needs the length of a cycle; set objective.annealing_steps")
    return _elbo(config, Weighted(objective.beta, annealing, objective.annealing_steps))


# Arguments: the config and the number of training images.
OBJECTIVES: Mapping[str, Callable[[Config, int], Objective]] = {
    "elbo": lambda config, num_images: _elbo(config, Weighted()),
    "beta": lambda config, num_images: _beta(config),
    "free_bits": lambda config, num_images: _elbo(config, FreeBits(config.objective.free_nats, config.model.latents)),
    "capacity": lambda config, num_images: _elbo(
        config, Capacity(config.objective.capacity_weight, config.objective.capacity, config.objective.annealing_steps)
    ),
    "iwae": lambda config, num_images: Iwae(config.objective.num_samples),
    "dreg": lambda config, num_images: Dreg(config.objective.num_samples),
    "mmd": lambda config, num_images: Mmd(config.objective.mmd_alpha, config.objective.mmd_weight),
    "beta_tcvae": lambda config, num_images: BetaTcvae(config.objective.beta, num_images),
    "wake_sleep": lambda config, num_images: WakeSleep(),
    "autoencoder": lambda config, num_images: Autoencoder(),
}

# The config fields that each of them reads, besides its name.
_ELBO_FIELDS = ("num_samples", "analytic_kl", "gradient")
FIELDS: Mapping[str, tuple[str, ...]] = {
    "elbo": _ELBO_FIELDS,
    "beta": (*_ELBO_FIELDS, "beta", "annealing", "annealing_steps"),
    "free_bits": (*_ELBO_FIELDS, "free_nats"),
    "capacity": (*_ELBO_FIELDS, "capacity", "capacity_weight", "annealing_steps"),
    "iwae": ("num_samples",),
    "dreg": ("num_samples",),
    "mmd": ("mmd_alpha", "mmd_weight"),
    "beta_tcvae": ("beta",),
    "wake_sleep": (),
    "autoencoder": (),
}

_NEEDS = {
    "density": "a density of q(z|x), which a point mass hasn't; use a Gaussian posterior",
    "density_anywhere": "the density of q(z|x) at any z, which flows without an inverse haven't; "
    "use a Gaussian posterior",
    "reparameterized": "a z that is differentiable in the parameters of q(z|x)",
    "factorized": "a q(z|x) that is a product over latent dimensions; use diagonal_gaussian",
    "deterministic": "a z that is a function of x alone; use model.posterior point_mass",
}


def build_loss(config: Config, model: Model, num_images: int = 0) -> LossFunction:
    """The objective of a model as a function `(variables, batch, key, step) -> Loss`.

    Args:
        config: The run.
        model: Its model.
        num_images: Training images, for objectives that refer to the whole data set.
    """
    objective = make("objective.name", config.objective.name, OBJECTIVES, config, num_images)
    return functools.partial(objective, model)


def check_objective(config: Config, model: Model, num_images: int, image_shape: ImageShape) -> None:
    """Refuses an objective that doesn't fit the model, and custom parts that fail.

    Raises:
        UserError: If the posterior lacks what the objective needs, a field was set that it doesn't read, or a custom
            part raises anything or returns something of a wrong shape.
    """
    name = config.objective.name
    _check_fields_are_read(config.objective)
    objective = make("objective.name", name, OBJECTIVES, config, num_images)
    if not isinstance(objective, Objective):
        raise UserError(
            f"objective.name '{name}' must give a function that has `needs`; see vae_jax.objectives.Objective"
        )
    if config.train.accumulation > 1 and not getattr(objective, "over_images", False):
        raise UserError(
            f"train.accumulation is {config.train.accumulation}, but objective.name '{name}' looks at "
            "the whole batch at once (it doesn't declare over_images); leave train.accumulation at 1"
        )
    for need in objective.needs:
        if need not in model.traits:
            raise UserError(
                f"objective.name '{name}' and model.posterior '{config.model.posterior}' don't go "
                f"together: it needs {_NEEDS.get(need, need)}"
            )
    parts = {"objective.name": name, **part_names(config.model)}
    if any(map(is_custom, parts.values())):
        with custom_errors(parts):
            _check_shapes(build_loss(config, model, num_images), model, image_shape)


def _check_fields_are_read(objective: ObjectiveConfig) -> None:
    """Refuses a field that was set but has no effect. A custom objective may read all fields."""
    read = FIELDS.get(objective.name)
    for field in dataclasses.fields(objective):
        unread = read is not None and field.name not in ("name", *read)
        if unread and getattr(objective, field.name) != field.default:
            readers = ", ".join(name for name, fields in FIELDS.items() if field.name in fields)
            raise UserError(
                f"objective.{field.name} has no effect under objective.name '{objective.name}'; leave it at "
                f"{field.default!r}, or choose an objective that it belongs to: {readers}"
            )


def _check_shapes(objective: LossFunction, model: Model, image_shape: ImageShape) -> None:
    """Traces everything that training and sampling call, without computing anything."""
    batch = Batch(jnp.zeros((2, *image_shape)), context=jnp.zeros((2, model.context_size)))

    def trace(key: jax.Array) -> dict[str, Any]:
        variables = init_variables(model, key, image_shape)
        loss = objective(variables, batch, key, jnp.zeros((), jnp.int32))
        z = model.sample_prior(variables, key, 2, batch.context)
        px = model.decode(variables, z, batch.context)
        return {
            **{f"loss of {player}": value for player, value in loss.players.items()},
            **loss.terms._asdict(),
            "posterior_mean": model.point(variables, model.encode(variables, batch)),
            "sample_prior": z,
            "decode_mean": px.mean(),
            "decode_sample": px.sample(key),
        }

    latents = jax.tree.map(lambda like: (2, *like.shape), model.latents)
    needed = {
        **{"posterior_mean": latents, "sample_prior": latents},
        **{"decode_mean": batch.x.shape, "decode_sample": batch.x.shape},
    }
    for name, found in jax.eval_shape(trace, jax.random.key(0)).items():
        shape = jax.tree.map(lambda leaf: leaf.shape, found)
        needed_shape = () if name.startswith("loss of") else needed.get(name, (2,))
        if found is not None and shape != needed_shape:
            raise TypeError(f"for 2 images {name} has shape {shape}, but must have shape {needed_shape}")
