"""Wake-sleep, a baseline in Kingma & Welling 2014."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vae_jax.models import Batch
from vae_jax.objectives.objective import MODEL, Loss
from vae_jax.objectives.terms import draw_joint, elbo_terms


@dataclasses.dataclass(frozen=True)
class WakeSleep:
    """Two losses for two sets of parameters.

    Wake: `-log p(x, z)` at z drawn for real images trains the prior and the decoder. Sleep: `-log q(z|x)` at z and x
    drawn from the model trains the encoder. The sum isn't a bound.

    Source:
        Hinton et al. 1995.
    """

    needs = ("density", "density_anywhere")
    over_images = True

    def __call__(self, model, variables, batch, key, step):
        """See `Objective`."""
        noise_key, prior_key, dream_key = jax.random.split(key, 3)
        fixed, count = lax.stop_gradient(variables), batch.x.shape[0]
        q = model.encode(fixed, batch, train=True)
        awake = draw_joint(model, fixed, batch, noise_key, q=q)
        of_model = model.joint(variables, batch, q, z=awake.z, train=True)
        wake_loss = -jnp.mean(of_model.log_likelihood + of_model.log_prior)

        z = model.sample_prior(fixed, prior_key, count, batch.context)
        dream = model.decode(fixed, z, batch.context).sample(dream_key)
        q = model.encode(variables, Batch(dream, context=batch.context), train=True)
        sleep_loss = -jnp.mean(model.log_posterior(variables, q, jax.tree.map(lambda leaf: leaf[None], z)))
        return Loss({MODEL: wake_loss + sleep_loss}, elbo_terms(awake), awake.state)
