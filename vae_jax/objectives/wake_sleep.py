"""Wake-sleep, a baseline in Kingma & Welling 2014."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vae_jax.noise import standard_normal
from vae_jax.objectives.terms import elbo_terms
from vae_jax.vae import apply


@dataclasses.dataclass(frozen=True)
class WakeSleep:
    """Two losses for two sets of parameters.

    Wake: `-log p(x, z)` at z drawn for real images trains the prior and the decoder. Sleep: `-log q(z|x)` at z and x
    drawn from the model trains the encoder. The sum isn't a bound.

    Source:
        Hinton et al. 1995.
    """

    needs = ("has_density", "log_prob_anywhere")
    over_images = True

    def __call__(self, model, params, x, key, step, label=None):
        """See `Objective`."""
        noise_key, prior_key, dream_key = jax.random.split(key, 3)
        fixed = lax.stop_gradient(params)
        noise = standard_normal(noise_key, (1, x.shape[0], model.noise_size))
        awake = apply(model, fixed, "__call__", x, noise, label)
        of_model = apply(model, params, "joint_terms_at", apply(model, fixed, "encode", x, label), x, awake.z, label)
        wake_loss = -jnp.mean(of_model.log_likelihood + of_model.log_prior)

        z = apply(model, fixed, "sample_prior", prior_key, x.shape[0])
        dream = apply(model, fixed, "decode_sample", z, dream_key, label)
        parameters = apply(model, params, "encode", dream, label)
        sleep_loss = -jnp.mean(apply(model, params, "log_posterior", parameters, z[None]))
        return wake_loss + sleep_loss, elbo_terms(awake)
