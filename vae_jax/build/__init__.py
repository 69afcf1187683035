"""From a config to its parts: the only registry of names.

A name is one of the tables' own, or `package.module:Name` for a custom part: a callable that takes what the members of
the same table take.
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
