"""Objectives: the losses that train a model; see `Objective` for their arguments and results."""

from vae_jax.objectives.autoencoder import Autoencoder
from vae_jax.objectives.beta_tcvae import BetaTcvae, KlParts, kl_parts
from vae_jax.objectives.elbo import GRADIENTS, Elbo, score_function_term
from vae_jax.objectives.factor_vae import FactorVae
from vae_jax.objectives.importance_weighted import Dreg, Iwae, importance_weighted_bound
from vae_jax.objectives.mmd import Mmd, maximum_mean_discrepancy
from vae_jax.objectives.objective import MODEL, Loss, Objective, Player
from vae_jax.objectives.penalties import ANNEALINGS, Beta, Capacity, FreeBits, cyclical_ramp, linear_ramp
from vae_jax.objectives.terms import ElboTerms, elbo_terms
from vae_jax.objectives.wake_sleep import WakeSleep
