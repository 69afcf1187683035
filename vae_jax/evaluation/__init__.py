"""Measuring a trained model: arrays and pure functions in, numbers with their errors out."""

from vae_jax.evaluation.batches import map_images
from vae_jax.evaluation.bound import make_bound
from vae_jax.evaluation.importance import ImportanceEstimate, make_importance_estimate, samples_at_once

__all__ = ["ImportanceEstimate", "make_bound", "make_importance_estimate", "map_images", "samples_at_once"]
