"""Priors p(z): densities over latents that can be sampled.

A prior is a Linen module with `log_prob(z)` and `sample(key, num_samples)`. It declares

- `latents`: how many components z has;
- `num_decoded`: how many of them, from the first, the decoder sees; all of them, but for a hierarchy;
- `is_standard_normal`: whether closed-form divergences to a standard normal apply;
- `needs_components`: whether it is a mixture of the model's posteriors. Such a prior has `pseudo_inputs()`,
  the images to encode, and both methods take the `Components` made from them as their last argument.
"""

from vae_jax.flows import standard_normal_log_prob
from vae_jax.priors.hierarchical import HierarchicalPrior
from vae_jax.priors.mixture import GaussianMixture
from vae_jax.priors.realnvp import RealNVP
from vae_jax.priors.standard_normal import StandardNormal
from vae_jax.priors.vampprior import Components, VampPrior
