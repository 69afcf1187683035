"""Objectives: what is optimized, and what is reported whatever is optimized.

An objective is a function `(model, params, x, key, step, label) -> (surrogate, terms)`. The surrogate is the
scalar over the whole batch that is differentiated and minimized; the terms are those of the ELBO, per image
and in nats. It declares `needs`: what the posterior must declare for it to make sense; and `over_images`
where the surrogate is a mean over images, so that parts of a batch add up to the whole.
"""

from vae_jax.objectives.autoencoder import Autoencoder
from vae_jax.objectives.beta_tcvae import BetaTcvae, KlParts, kl_parts
from vae_jax.objectives.elbo import GRADIENTS, Elbo, ElboTerms, elbo_terms, score_function_term
from vae_jax.objectives.importance_weighted import Dreg, Iwae, importance_weighted_bound
from vae_jax.objectives.mmd import Mmd, maximum_mean_discrepancy
from vae_jax.objectives.penalties import ANNEALINGS, Capacity, FreeBits, Penalty, Weighted, cyclical_ramp, linear_ramp
from vae_jax.objectives.wake_sleep import WakeSleep
