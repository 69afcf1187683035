"""Approximate posteriors q(z|x): from an encoder's features to latents and their density.

A posterior is a Linen module. Called on features `[B, F]` it gives its parameters for each image (a tree of
arrays whose first axis is B); everything else is a deterministic function of those parameters and of
standard normal noise that the caller brings, which is the reparameterization trick:
`z = g(noise; parameters)`. It has

- `transform(parameters, noise) -> (z, log q(z|x))` for noise `[K, B, noise_size]`;
- `log_prob(parameters, z)`, if it declares `log_prob_anywhere`;
- `mean(parameters)`: where its mass is, for reconstructions;
- `kl_to_standard_normal(parameters)`, if it declares `analytic_kl`.

and declares

- `noise_size`: how many normal numbers one sample takes;
- `analytic_kl`: whether the KL divergence to a standard normal is known in closed form;
- `has_density`: whether log q(z|x) exists at all (a point mass has none);
- `log_prob_anywhere`: whether log q can be had at a z that it didn't draw itself;
- `reparameterized`: whether z is differentiable in the parameters.
"""

from vae_jax.posteriors.diagonal_gaussian import (
    DiagonalGaussian,
    GaussianParameters,
    diagonal_gaussian_log_prob,
    kl_to_standard_normal,
)

__all__ = ["DiagonalGaussian", "GaussianParameters", "diagonal_gaussian_log_prob", "kl_to_standard_normal"]
