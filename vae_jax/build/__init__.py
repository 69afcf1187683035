"""From a config to its parts: the only tables of names.

A name is a member of a table, or `package.module:Name` for a custom part: a callable with the same arguments as the
members of that table.
"""

from vae_jax.build.model import build_model, build_model_for
from vae_jax.build.objective import build_loss, check_objective
from vae_jax.build.registry import choose, choose_or_import
from vae_jax.build.run import (
    build_data,
    build_optimizer,
    build_preparation,
    build_schedule,
    build_state,
    build_steps,
    build_train_step,
    check_fit,
    must_unroll,
    resolve,
    seeds_of,
    with_config,
)
