"""From a config to its parts: the only tables of names.

A name is a member of a table, or `package.module:Name` for a custom part: a class (or a function) whose arguments
without a default are among those that the members of that table take, and whose other arguments are its settings.
"""

from vae_jax.build.model import build_model, build_model_for
from vae_jax.build.objective import build_loss, build_objective, build_players, check_objective
from vae_jax.build.parts import MEMBERS, describe_part, describe_parts, resolve_parts, shortened
from vae_jax.build.registry import choose_or_import, is_custom
from vae_jax.build.run import (
    build_data,
    build_optimizer,
    build_preparation,
    build_schedule,
    build_state,
    build_steps,
    build_train_step,
    check_fit,
    fresh_state,
    must_unroll,
    resolve,
    seeds_of,
    with_config,
)
