"""The ELBO of each image of a split, as it is watched during training."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vae_jax.noise import normal_per_image
from vae_jax.objectives import ElboTerms, elbo_terms
from vae_jax.vae import VAE, Label, Params, apply


def make_bound(model: VAE, num_samples: int) -> Callable[..., ElboTerms]:
    """A compiled function that measures the bound.

    Args:
        model: The model.
        num_samples: Samples of z per image.

    Returns:
        `(params, x, image_ids, key, label=None) -> terms per image`, in nats. The noise is a function of (key,
        image) alone; the KL is in closed form where there is one.
    """

    @jax.jit
    def bound(
        params: Params,
        x: Float[Array, "b h w c"],
        image_ids: Int[Array, "b"],
        key: Key[Array, ""],
        label: Label = None,
    ) -> ElboTerms:
        noise = normal_per_image(key, image_ids, jnp.arange(num_samples), model.noise_size)
        return elbo_terms(apply(model, params, "__call__", x, noise, label))

    return bound
