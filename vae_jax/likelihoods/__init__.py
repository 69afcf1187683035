"""Likelihoods p(x|z): the distributions that the outputs of a decoder parameterize.

Each is a Linen module (some have parameters) over pure density functions. It declares

- `outputs_per_pixel(channels)`: how many outputs of the decoder it needs for each pixel;
- `base_measure`: what its density refers to: `binary` (probabilities of 0/1 images), `256 levels` (probabilities of
  grey levels), `continuous` (per unit of x; pixels are in [0, 1]), `continuous on [0, 1]`, or `counts`;
- `support`: the values it is a density of: `binary` (0 or 1), `levels` (k/(L-1), as in a file), `continuous`
  (anything in [0, 1]), `real` (any real number), `counts` (0, 1, 2, ...).
- `encoder_input(x)`: what the encoder sees in place of x; it may be absent.
- `mean_in_page`: how the report's page computes its mean (`sigmoid`, `identity`, `continuous_bernoulli`); it may be
  absent.

For decoder outputs `[..., H, W, outputs_per_pixel(C)]` and images `[..., H, W, C]` in [0, 1] it has
`log_prob(outputs, x, observed=None)`, `mean(outputs)` and `sample(outputs, key)`. A mask `observed` in the shape of the
images says which values count. A likelihood whose noise has a width (a standard deviation, a scale) declares
`has_width = True`, and its `log_prob` takes a `log_factor` too: the width is then times `exp(log_factor)`.
"""

from vae_jax.likelihoods.bernoulli import Bernoulli, bernoulli_log_prob
from vae_jax.likelihoods.continuous_bernoulli import ContinuousBernoulli, continuous_bernoulli_log_prob
from vae_jax.likelihoods.discretized_logistic import DiscretizedLogistic, discretized_logistic_log_prob
from vae_jax.likelihoods.discretized_logistic_mixture import DiscretizedLogisticMixture, logistic_mixture_log_prob
from vae_jax.likelihoods.gaussian import Gaussian, GaussianPerPixel, gaussian_log_prob
from vae_jax.likelihoods.poisson import Poisson, poisson_log_prob
