"""Invertible maps with their log-determinants, and the Gaussians before them; for posteriors and priors."""

from vae_jax.flows.autoregressive import AutoregressiveNetwork, MaskedDense, autoregressive_step
from vae_jax.flows.coupling import AffineCoupling
from vae_jax.flows.gaussian import (
    ConditionalGaussian,
    GaussianParameters,
    diagonal_gaussian_log_prob,
    standard_normal_log_prob,
)
from vae_jax.flows.planar import planar
