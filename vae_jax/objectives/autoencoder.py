"""The plain autoencoder: reconstruction alone."""

import dataclasses

import jax.numpy as jnp

from vae_jax.objectives.terms import elbo_terms
from vae_jax.vae import apply


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """`-log p(x|z)` at the single z of the encoder. There is no bound, so the terms have no ELBO.

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
