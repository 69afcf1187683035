"""The plain autoencoder: reconstruction alone."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vae_jax.objectives.elbo import ElboTerms, elbo_terms
from vae_jax.vae import VAE, Label, Params, apply


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """`-log p(x|z)` at the one z that the encoder gives. It bounds nothing, so there is no ELBO beside it.

    Source:
        Rumelhart et al. 1986.
    """

    needs = ("deterministic",)
    over_images = True

    def __call__(
        self,
        model: VAE,
        params: Params,
        x: Float[Array, "b h w c"],
        key: Key[Array, ""],
        step: Int[Array, ""],
        label: Label = None,
    ) -> tuple[Float[Array, ""], ElboTerms]:
        """Loss in nats, and its one term; see `Elbo`. Nothing is drawn from the key."""
        noise = jnp.zeros((1, x.shape[0], model.noise_size))
        terms = elbo_terms(apply(model, params, "__call__", x, noise, label))
        return -jnp.mean(terms.reconstruction), terms
