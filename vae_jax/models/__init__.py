"""Models p(x, z) with their posteriors q(z|x): the protocol, and the models that keep it."""

from vae_jax.models.latents import decode_flat, flat_latents, flat_point, nested_latents, num_latents, sample_flat
from vae_jax.models.model import (
    Batch,
    Context,
    Distribution,
    Joint,
    Model,
    Variables,
    check_has_density,
    init_variables,
    noise_stddev,
)
from vae_jax.models.two_layers import HierarchicalPosterior, HierarchicalPrior
from vae_jax.models.vae import VAE, refusal
