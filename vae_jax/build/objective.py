"""Objectives by name, and whether they go with a model."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from vae_jax.build.custom import check_custom_objective
from vae_jax.build.registry import choose, is_custom, make
from vae_jax.config import Config, ObjectiveConfig
from vae_jax.errors import UserError
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
    Penalty,
    WakeSleep,
    Weighted,
)
from vae_jax.training import LossFunction
from vae_jax.vae import VAE


def _elbo(config: Config, penalty: Penalty) -> Elbo:
    objective = config.objective
    gradient = choose("objective.gradient", objective.gradient, {name: name for name in GRADIENTS})
    return Elbo(objective.num_samples, objective.analytic_kl, penalty, gradient)


def _beta(config: Config) -> Elbo:
    objective = config.objective
    annealing = choose("objective.annealing", objective.annealing, {name: name for name in ANNEALINGS})
    if annealing == "cyclical" and not objective.annealing_steps:
        raise UserError("objective.annealing 'cyclical' needs the length of a cycle; set objective.annealing_steps")
    return _elbo(config, Weighted(objective.beta, annealing, objective.annealing_steps))


# An objective is told the number of training images.
OBJECTIVES: Mapping[str, Callable[[Config, int], Any]] = {
    "elbo": lambda config, num_images: _elbo(config, Weighted()),
    "beta": lambda config, num_images: _beta(config),
    "free_bits": lambda config, num_images: _elbo(config, FreeBits(config.objective.free_nats, config.model.latents)),
    "capacity": lambda config, num_images: _elbo(
        config,
        Capacity(config.objective.capacity_weight, config.objective.capacity, config.objective.annealing_steps),
    ),
    "iwae": lambda config, num_images: Iwae(config.objective.num_samples),
    "dreg": lambda config, num_images: Dreg(config.objective.num_samples),
    "mmd": lambda config, num_images: Mmd(config.objective.mmd_alpha, config.objective.mmd_weight),
    "beta_tcvae": lambda config, num_images: BetaTcvae(config.objective.beta, num_images),
    "wake_sleep": lambda config, num_images: WakeSleep(),
    "autoencoder": lambda config, num_images: Autoencoder(),
}

# Which fields of the config each of them reads, besides its name.
_ELBO_FIELDS = frozenset({"num_samples", "analytic_kl", "gradient"})
FIELDS: Mapping[str, frozenset[str]] = {
    "elbo": _ELBO_FIELDS,
    "beta": _ELBO_FIELDS | {"beta", "annealing", "annealing_steps"},
    "free_bits": _ELBO_FIELDS | {"free_nats"},
    "capacity": _ELBO_FIELDS | {"capacity", "capacity_weight", "annealing_steps"},
    "iwae": frozenset({"num_samples"}),
    "dreg": frozenset({"num_samples"}),
    "mmd": frozenset({"mmd_alpha", "mmd_weight"}),
    "beta_tcvae": frozenset({"beta"}),
    "wake_sleep": frozenset(),
    "autoencoder": frozenset(),
}

_NEEDS = {
    "has_density": "a density of q(z|x), which a point mass hasn't; use a Gaussian posterior",
    "log_prob_anywhere": "the density of q(z|x) at any z, which flows without an inverse haven't; "
    "use a Gaussian posterior",
    "reparameterized": "a z that is differentiable in the parameters of q(z|x)",
    "factorized": "a q(z|x) that is a product over latent dimensions; use diagonal_gaussian",
    "deterministic": "a z that is a function of x alone; use model.posterior point_mass",
}


def check_objective(config: Config, model: VAE, num_images: int, image_shape: tuple[int, int, int]) -> None:
    """Refuses an objective that needs what the posterior doesn't declare, or doesn't read a field that was set.

    Raises:
        UserError: With what it needs, and what to use instead.
    """
    for field in dataclasses.fields(config.objective):
        _check_is_read(config.objective, field)
    objective = make("objective.name", config.objective.name, OBJECTIVES, config, num_images)
    if config.train.accumulation > 1 and not getattr(objective, "over_images", False):
        raise UserError(
            f"train.accumulation is {config.train.accumulation}, but objective.name '{config.objective.name}' looks at "
            "the whole batch at once (it doesn't declare over_images); leave train.accumulation at 1"
        )
    if is_custom(config.objective.name):
        check_custom_objective(objective, config.objective.name, model, image_shape)
    for need in objective.needs:
        if not getattr(model.posterior, need, False):
            raise UserError(
                f"objective.name '{config.objective.name}' and model.posterior '{config.model.posterior}' don't go "
                f"together: it needs {_NEEDS[need]}"
            )


def _check_is_read(objective: ObjectiveConfig, field: dataclasses.Field) -> None:
    """Refuses a field that was set for nothing."""
    read = FIELDS.get(objective.name)
    # A custom objective may read all of them.
    if read is None or field.name == "name" or field.name in read:
        return
    if getattr(objective, field.name) != field.default:
        readers = ", ".join(name for name, fields in FIELDS.items() if field.name in fields)
        raise UserError(
            f"objective.{field.name} has no effect under objective.name '{objective.name}'; leave it at "
            f"{field.default!r}, or choose an objective that it belongs to: {readers}"
        )


def build_loss(config: Config, model: VAE, num_images: int = 0) -> LossFunction:
    """The objective of a model as a function of its parameters.

    Args:
        config: The run.
        model: Its model.
        num_images: Training images, for objectives that refer to the whole data set.
    """
    objective = make("objective.name", config.objective.name, OBJECTIVES, config, num_images)

    def loss(params, x, key, step, label=None):
        return objective(model, params, x, key, step, label)

    return loss
