"""Likelihoods p(x|z): what the numbers that a decoder puts out mean.

Each is a Linen module (some have parameters of their own) over pure density functions. It declares

- `outputs_per_pixel(channels)`: how many numbers it needs from the decoder for each pixel;
- `base_measure`: what its density is with respect to: `binary` (probabilities of 0/1 images), `256 levels`
  (probabilities of grey levels), or `continuous on [0, 1]`;
- `support`: which pixels it is a density of: `binary` (0 or 1), `levels` (k/(L-1), as read from a file), `continuous`
  (anything in [0, 1], as after dequantization), `real` (any real number);

and, for decoder outputs `[..., H, W, outputs_per_pixel(C)]` and images `[..., H, W, C]` in [0, 1], has
`log_prob(outputs, x)`, `mean(outputs)` and `sample(outputs, key)`. One whose noise has a width of its own (a
standard deviation, a scale) also has `log_prob_rescaled(outputs, x, log_factor)`: `log_prob` with that width
times `exp(log_factor)`, everything else as it is.
"""

from vae_jax.likelihoods.bernoulli import Bernoulli, bernoulli_log_prob
from vae_jax.likelihoods.continuous_bernoulli import ContinuousBernoulli, continuous_bernoulli_log_prob
from vae_jax.likelihoods.discretized_logistic import DiscretizedLogistic, discretized_logistic_log_prob
from vae_jax.likelihoods.discretized_logistic_mixture import DiscretizedLogisticMixture, logistic_mixture_log_prob
from vae_jax.likelihoods.gaussian import Gaussian, GaussianPerPixel, gaussian_log_prob
