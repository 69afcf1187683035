"""Optax optimizers by name, with schedule and clipping."""

import optax

SCHEDULES = ("constant", "cosine", "iwae")
# name -> (learning rate, epsilon) -> transformation; those that aren't Adam's keep their own epsilon.
OPTIMIZERS = {
    "adam": lambda rate, epsilon: optax.adam(rate, eps=epsilon),
    "adamw": lambda rate, epsilon: optax.adamw(rate, eps=epsilon),
    "adagrad": lambda rate, epsilon: optax.adagrad(rate),
    "rmsprop": lambda rate, epsilon: optax.rmsprop(rate),
    "sgd": lambda rate, epsilon: optax.sgd(rate),
}
_IWAE_RUNGS = 8


def make_optimizer(
    name: str,
    learning_rate: float,
    num_steps: int,
    schedule: str = "constant",
    warmup_steps: int = 0,
    clip_norm: float = 0.0,
    adam_epsilon: float = 1e-8,
    steps_per_epoch: int = 1,
) -> optax.GradientTransformation:
    """An optimizer whose learning rate follows a schedule.

    Args:
        name: One of `OPTIMIZERS`.
        learning_rate: The highest learning rate.
        num_steps: Steps in all; where `cosine` reaches 0.
        schedule: One of `SCHEDULES`.
        warmup_steps: Steps over which the rate rises linearly from 0.
        clip_norm: Gradients with a larger global norm are scaled down to it; 0 for never.

        adam_epsilon: Added to the denominator of `adam` and `adamw`.
        steps_per_epoch: The unit of the rungs of `iwae`.

    Returns:
        The transformation from gradients to updates.
    """
    if schedule == "cosine":
        after_warmup = optax.cosine_decay_schedule(learning_rate, max(1, num_steps - warmup_steps))
    elif schedule == "iwae":
        after_warmup = iwae_schedule(learning_rate, steps_per_epoch)
    else:
        after_warmup = optax.constant_schedule(learning_rate)
    rate = after_warmup
    if warmup_steps:
        rising = optax.linear_schedule(0.0, learning_rate, warmup_steps)
        rate = optax.join_schedules([rising, after_warmup], [warmup_steps])
    optimizer = OPTIMIZERS[name](rate, adam_epsilon)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm > 0 else optimizer


def iwae_schedule(learning_rate: float, steps_per_epoch: int) -> optax.Schedule:
    """Eight rungs: `learning_rate * 10^(-i/7)` for `3^i` epochs, i = 0..7, which is 3280 epochs in all.

    Source:
        Burda et al., arXiv 1509.00519, section 5.
    """
    rates = [learning_rate * 10.0 ** (-i / (_IWAE_RUNGS - 1)) for i in range(_IWAE_RUNGS)]
    ends = [steps_per_epoch * (3 ** (i + 1) - 1) // 2 for i in range(_IWAE_RUNGS - 1)]
    return optax.join_schedules([optax.constant_schedule(rate) for rate in rates], ends)
