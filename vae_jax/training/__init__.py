"""Training: the state, one step, what feeds many of them, and the loop that hands out events."""

from vae_jax.training.background import Background
from vae_jax.training.feeding import BatchOrder, ResidentSteps, Steps
from vae_jax.training.loop import CheckpointDue, Interrupted, Logged, RunSteps, Schedule, Stopping, training_events
from vae_jax.training.optimizers import OPTIMIZERS, Adam, AdamW, Sgd, make_optimizer
from vae_jax.training.postmortem import BrokenStep, find_broken_step
from vae_jax.training.step import (
    REPLICA_AXES,
    LossFunction,
    Preparation,
    TrainState,
    TrainStep,
    all_finite,
    create_state,
    make_train_step,
    replica_of,
    replicate,
    with_players,
    with_their_optimizers,
)
from vae_jax.training.streaming import StreamedSteps
