"""A trained model: what it is made of, what it can do, and how it is opened from a run."""

from vae_jax.trained.model import TrainedModel, describe_posterior, digest
from vae_jax.trained.opening import (
    check_custom,
    check_custom_name,
    open_replicas,
    open_run,
    replica_of,
    replica_variables,
)
