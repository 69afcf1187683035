"""Objectives as functions of the parameters alone, for gradients."""

from typing import Any

import jax

from vae_jax.models import Batch
from vae_jax.objectives import ElboTerms


def loss_of(objective: Any, model: Any, params: Any, x: Any, key: Any, step: Any) -> tuple[jax.Array, ElboTerms]:
    """What the model's player minimizes, and the terms."""
    loss = objective(model, {"params": params}, Batch(x), key, step)
    assert set(loss.players) == {"model"}
    return loss.players["model"], loss.terms
