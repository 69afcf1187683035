"""Priors p(z): densities over latents that can be sampled.

A prior is a Linen module with `log_prob(z)` and `sample(key, num_samples)`. It declares
`is_standard_normal`, which tells whether closed-form divergences to a standard normal apply.
"""

from vae_jax.priors.standard_normal import StandardNormal, standard_normal_log_prob

__all__ = ["StandardNormal", "standard_normal_log_prob"]
