"""Likelihoods p(x|z): what the numbers that a decoder puts out mean.

Each is a Linen module (some have parameters of their own) over pure density functions. It declares

- `outputs_per_pixel(channels)`: how many numbers it needs from the decoder for each pixel;
- `measure`: what its density is with respect to: `binary` (probabilities of 0/1 images), `256 levels`
  (probabilities of grey levels), or `continuous on [0, 1]`;

and, for decoder outputs `[..., H, W, outputs_per_pixel(C)]` and images `[..., H, W, C]` in [0, 1], has
`log_prob(outputs, x)`, `mean(outputs)` and `sample(outputs, key)`.
"""

from vae_jax.likelihoods.bernoulli import Bernoulli, bernoulli_log_prob
from vae_jax.likelihoods.gaussian import Gaussian, gaussian_log_prob

__all__ = ["Bernoulli", "Gaussian", "bernoulli_log_prob", "gaussian_log_prob"]
