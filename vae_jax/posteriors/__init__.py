"""Approximate posteriors q(z|x): from features of the encoder to latents and their density.

A posterior is a Linen module. Called with features `[B, F]` it returns its parameters (arrays whose first axis is B).
Everything else is a deterministic function of these parameters and of standard normal noise from the caller, the
reparameterization trick: `z = g(noise; parameters)`. It has

- `transform(parameters, noise) -> (z, log q(z|x))` for noise `[K, B, noise_size]`; log q is None for a posterior
  without a density;
- `log_prob(parameters, z)`, if it declares `log_prob_anywhere`;
- `mean(parameters)`: its mean or center, for reconstructions;
- `kl_to_standard_normal(parameters)`, if it declares `analytic_kl`.

It declares

- `latents`: the dimensions of z;
- `noise_size`: the normal numbers for one sample;
- `analytic_kl`: whether the KL divergence to a standard normal has a closed form;
- `has_density`: whether log q(z|x) exists (a point mass has none);
- `log_prob_anywhere`: whether log q can be computed for any z, not only its samples;
- `reparameterized`: whether z is differentiable in the parameters;
- `factorized = True`, if its density is a product over dimensions: it then has `log_prob_per_dimension` and, with
  `analytic_kl`, `kl_per_dimension`;
- `deterministic = True`, if z is a function of x alone.
"""

from vae_jax.flows import GaussianParameters, diagonal_gaussian_log_prob
from vae_jax.posteriors.diagonal_gaussian import DiagonalGaussian, kl_to_standard_normal
from vae_jax.posteriors.full_gaussian import FullGaussian, FullGaussianParameters
from vae_jax.posteriors.iaf import IAF
from vae_jax.posteriors.planar import PlanarFlow
from vae_jax.posteriors.point_mass import PointMass
from vae_jax.posteriors.posterior import Posterior
