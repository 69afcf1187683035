"""From the objective section of a config to an objective, checked against the model."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.build.model import ImageShape, names_of_parts
from vae_jax.build.registry import custom_errors, is_custom, make_part
from vae_jax.config import Config
from vae_jax.errors import UserError
from vae_jax.models import Batch, Model, init_variables, num_latents
from vae_jax.objectives import (
    Autoencoder,
    Beta,
    BetaTcvae,
    Capacity,
    Dreg,
    Elbo,
    FactorVae,
    FreeBits,
    Iwae,
    Mmd,
    Objective,
    Player,
    WakeSleep,
)
from vae_jax.settings import read_part
from vae_jax.training import LossFunction, with_players

OBJECTIVES: Mapping[str, Any] = {
    "elbo": Elbo,
    "beta": Beta,
    "free_bits": FreeBits,
    "capacity": Capacity,
    "iwae": Iwae,
    "dreg": Dreg,
    "mmd": Mmd,
    "beta_tcvae": BetaTcvae,
    "factor_vae": FactorVae,
    "wake_sleep": WakeSleep,
    "autoencoder": Autoencoder,
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
    return functools.partial(build_objective(config, model, num_images), model)


def build_objective(config: Config, model: Model, num_images: int = 0) -> Objective:
    """The objective that the config names; see `build_loss`.

    Raises:
        UserError: For a wrong text, or a custom part that is no objective.
    """
    given = {"num_images": num_images, "num_latents": num_latents(model)}
    objective = make_part("objective", config.objective, OBJECTIVES, **given)
    if not isinstance(objective, Objective):
        name = read_part("objective", config.objective).name
        raise UserError(f"objective '{name}' must give a function that has `needs`; see vae_jax.objectives.Objective")
    return objective


def build_players(config: Config, model: Model) -> Mapping[str, Player]:
    """The players beside the model that the config's objective has, by name."""
    objective: Any = build_objective(config, model)
    return objective.players(model) if hasattr(objective, "players") else {}


def check_objective(config: Config, model: Model, num_images: int, image_shape: ImageShape) -> None:
    """Refuses an objective that doesn't fit the model, and custom parts that fail.

    Raises:
        UserError: If the posterior lacks what the objective needs, or a custom part raises anything or returns
            something of a wrong shape.
    """
    name = read_part("objective", config.objective).name
    objective = build_objective(config, model, num_images)
    if config.train.accumulation > 1 and not getattr(objective, "over_images", False):
        raise UserError(
            f"train.accumulation is {config.train.accumulation}, but objective '{name}' looks at "
            "the whole batch at once (it doesn't declare over_images); leave train.accumulation at 1"
        )
    parts = {"objective": name, **names_of_parts(config.model)}
    for need in objective.needs:
        if need not in model.traits:
            raise UserError(
                f"objective '{name}' and model.posterior '{parts['model.posterior']}' don't go "
                f"together: it needs {_NEEDS.get(need, need)}"
            )
    if any(map(is_custom, parts.values())):
        with custom_errors(parts):
            players = build_players(config, model)
            _check_shapes(build_loss(config, model, num_images), model, image_shape, players)


def _check_shapes(
    objective: LossFunction, model: Model, image_shape: ImageShape, players: Mapping[str, Player]
) -> None:
    """Traces everything that training and sampling call, without computing anything."""
    batch = Batch(jnp.zeros((2, *image_shape)), context=jnp.zeros((2, model.context_size)))

    def trace(key: jax.Array) -> dict[str, Any]:
        variables = with_players(init_variables(model, key, image_shape), players, key)
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
