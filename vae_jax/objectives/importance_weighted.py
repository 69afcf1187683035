"""The importance-weighted bound, and its doubly reparameterized gradient."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vae_jax.objectives.objective import MODEL, Loss
from vae_jax.objectives.terms import draw_joint, elbo_terms
from vae_jax.settings import setting
from vae_jax.shapes import PerImage, PerSample


def importance_weighted_bound(log_weights: PerSample) -> PerImage:
    """`log 1/K sum_k w_k`, which equals the ELBO for K = 1 and increases with K toward log p(x).

    Args:
        log_weights: log p(x, z_k) - log q(z_k|x), in nats.

    Returns:
        Nats per image.

    Source:
        Burda et al., arXiv 1509.00519, eq. 8.
    """
    return jax.nn.logsumexp(log_weights, axis=0) - jnp.log(log_weights.shape[0])


@dataclasses.dataclass(frozen=True)
class Iwae:
    """Minus the importance-weighted bound; the terms are those of the ELBO.

    Attributes:
        num_samples: Samples of z per image (k in the paper).
    """

    num_samples: int = setting(5, "of z for each image (K)", minimum=1)

    needs = ("density", "reparameterized")
    over_images = True

    def __call__(self, model, variables, batch, key, step):
        """See `Objective`."""
        joint = draw_joint(model, variables, batch, key, self.num_samples)
        return Loss({MODEL: -jnp.mean(importance_weighted_bound(joint.log_weights))}, elbo_terms(joint), joint.state)


@dataclasses.dataclass(frozen=True)
class Dreg:
    """The same bound with the doubly reparameterized gradient of the encoder.

    With normalized weights `v_k`, the decoder's gradient is that of IWAE, `sum_k v_k d log w_k`, and the
    encoder's is `sum_k v_k^2 (d log w_k / dz_k) (dz_k / d phi)`: the direct dependence of log q on phi is integrated
    out. It is unbiased, and its signal doesn't fade as K grows.

    Attributes:
        num_samples: Samples of z per image.

    Source:
        Tucker et al., arXiv 1810.04152, eq. 7.
    """

    num_samples: int = setting(5, "of z for each image (K)", minimum=1)

    needs = ("density", "reparameterized", "density_anywhere")
    over_images = True

    def __call__(self, model, variables, batch, key, step):
        """See `Objective`."""
        q = model.encode(variables, batch, train=True)
        drawn = draw_joint(model, variables, batch, key, self.num_samples, q)
        # z follows the encoder, all densities stand still; and the other way round.
        fixed, fixed_q, fixed_z = lax.stop_gradient((variables, q, drawn.z))
        of_model = model.joint(variables, batch, fixed_q, z=fixed_z, train=True)
        of_encoder = model.joint(fixed, batch, fixed_q, z=drawn.z, train=True)
        log_weights = lax.stop_gradient(drawn.log_weights)
        share = jax.nn.softmax(log_weights, axis=0)
        toward_model = share * (of_model.log_likelihood + of_model.log_prior)
        toward_encoder = jnp.square(share) * of_encoder.log_weights
        gradient = jnp.mean(jnp.sum(toward_model + toward_encoder, axis=0))
        bound = jnp.mean(importance_weighted_bound(log_weights))
        surrogate = -(bound + gradient - lax.stop_gradient(gradient))
        return Loss({MODEL: surrogate}, elbo_terms(drawn), drawn.state)
