"""Objectives: what is optimized, and what is reported whatever is optimized.

An objective is a function `(model, params, x, key, step) -> (surrogate, terms)`. The surrogate is the
scalar over the whole batch that is differentiated and minimized; the terms are those of the ELBO, per
image and in nats.
"""

from vae_jax.objectives.elbo import Elbo, ElboTerms, elbo_terms

__all__ = ["Elbo", "ElboTerms", "elbo_terms"]
