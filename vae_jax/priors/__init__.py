"""Priors p(z): densities of latents with a sampler.

A prior is a Linen module with `log_prob(z)` and `sample(key, num_samples)`. It declares

- `latents`: the dimensions of z;
- `num_decoded`: how many of them, from the first, go into the decoder; all, except in a hierarchy;
- `is_standard_normal`: whether closed-form divergences to a standard normal apply;
- `takes_context`: whether it depends on what a conditional model is told, so that both methods take it as `context`;
- `needs_components`: whether it is a mixture of posteriors of the model. Such a prior has `pseudo_inputs()`, the images
  to encode, and both methods take the resulting `Components` as their last argument.
"""

from vae_jax.flows import standard_normal_log_prob
from vae_jax.priors.conditional_gaussian import ConditionalGaussianPrior
from vae_jax.priors.mixture import GaussianMixture
from vae_jax.priors.prior import Prior
from vae_jax.priors.realnvp import RealNVP
from vae_jax.priors.standard_normal import StandardNormal
from vae_jax.priors.vampprior import Components, VampPrior
