"""The plain autoencoder: reconstruction alone."""

import dataclasses

import jax.numpy as jnp

from vae_jax.objectives.terms import elbo_terms
from vae_jax.vae import apply


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """`-log p(x|z)` at the one z that the encoder gives. It bounds nothing, so there is no ELBO beside it.

    Source:
        Rumelhart et al. 1986.
    """

    needs = ("deterministic",)
    over_images = True

    def __call__(self, model, params, x, key, step, label=None):
        """See `Objective`."""
        noise = jnp.zeros((1, x.shape[0], model.noise_size))
        terms = elbo_terms(apply(model, params, "__call__", x, noise, label))
        return -jnp.mean(terms.reconstruction), terms
