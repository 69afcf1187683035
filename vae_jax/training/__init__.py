"""Training: the state, one step, many steps in one compiled call, and the loop that hands out events."""

from vae_jax.training.loop import CheckpointDue, Logged, Schedule, training_events
from vae_jax.training.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer
from vae_jax.training.step import LossFunction, Preparation, TrainState, create_state, make_run_steps, make_train_step

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "CheckpointDue",
    "Logged",
    "LossFunction",
    "Preparation",
    "Schedule",
    "TrainState",
    "create_state",
    "make_optimizer",
    "make_run_steps",
    "make_train_step",
    "training_events",
]
