"""Optax optimizers by name, with schedule and clipping."""

import optax

SCHEDULES = ("constant", "cosine")
OPTIMIZERS = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


def make_optimizer(
    name: str,
    learning_rate: float,
    num_steps: int,
    schedule: str = "constant",
    warmup_steps: int = 0,
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """An optimizer whose learning rate follows a schedule.

    Args:
        name: One of `OPTIMIZERS`.
        learning_rate: The highest learning rate.
        num_steps: Steps in all; where `cosine` reaches 0.
        schedule: One of `SCHEDULES`.
        warmup_steps: Steps over which the rate rises linearly from 0.
        clip_norm: Gradients with a larger global norm are scaled down to it; 0 for never.

    Returns:
        The transformation from gradients to updates.
    """
    if schedule == "cosine":
        after_warmup = optax.cosine_decay_schedule(learning_rate, max(1, num_steps - warmup_steps))
    else:
        after_warmup = optax.constant_schedule(learning_rate)
    rate = after_warmup
    if warmup_steps:
        rising = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        rate = optax.join_schedules([rising, after_warmup], [warmup_steps])
    optimizer = OPTIMIZERS[name](rate)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm > 0 else optimizer
