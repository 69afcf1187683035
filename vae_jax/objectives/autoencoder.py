"""The plain autoencoder: reconstruction alone."""

import dataclasses

import jax.numpy as jnp

from vae_jax.objectives.objective import MODEL, Loss
from vae_jax.objectives.terms import elbo_terms


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """`-log p(x|z)` at the single z of the encoder. There is no bound, so the terms have no ELBO.

    Source:
        Rumelhart et al. 1986.
    """

    needs = ("deterministic",)
    over_images = True

    def __call__(self, model, variables, batch, key, step):
        """See `Objective`."""
        joint = model.joint(variables, batch, noise=jnp.zeros((1, batch.x.shape[0], model.noise_size)), train=True)
        terms = elbo_terms(joint)
        return Loss({MODEL: -jnp.mean(terms.reconstruction)}, terms, joint.state)
