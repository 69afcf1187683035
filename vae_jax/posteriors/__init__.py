"""Approximate posteriors q(z|x): from an encoder's features to latents and their density.

A posterior is a Linen module. Called on features `[B, F]` it gives its parameters for each image (a tree of
arrays whose first axis is B); everything else is a deterministic function of those parameters and of
standard normal noise that the caller brings, which is the reparameterization trick:
`z = g(noise; parameters)`. It has

- `transform(parameters, noise) -> (z, log q(z|x))` for noise `[K, B, noise_size]`; where there is no
  density, None stands for log q, so that no number can be mistaken for one;
- `log_prob(parameters, z)`, if it declares `log_prob_anywhere`;
- `mean(parameters)`: where its mass is, for reconstructions;
- `kl_to_standard_normal(parameters)`, if it declares `analytic_kl`.

and declares

- `latents`: how many components z has;
- `noise_size`: how many normal numbers one sample takes;
- `analytic_kl`: whether the KL divergence to a standard normal is known in closed form;
- `has_density`: whether log q(z|x) exists at all (a point mass has none);
- `log_prob_anywhere`: whether log q can be had at a z that it didn't draw itself;
- `reparameterized`: whether z is differentiable in the parameters;
- `factorized`, if it is: that its density is a product over components, so that it also has
  `log_prob_per_dimension` and, with `analytic_kl`, `kl_per_dimension`;
- `deterministic`, if it is: that z is a function of x alone.
"""

from vae_jax.flows import GaussianParameters, diagonal_gaussian_log_prob
from vae_jax.posteriors.diagonal_gaussian import DiagonalGaussian, kl_to_standard_normal
from vae_jax.posteriors.full_gaussian import FullGaussian, FullGaussianParameters
from vae_jax.posteriors.hierarchical import HierarchicalPosterior
from vae_jax.posteriors.iaf import IAF
from vae_jax.posteriors.planar import PlanarFlow
from vae_jax.posteriors.point_mass import PointMass
