"""InfoVAE: maximum mean discrepancy keeps the aggregate posterior close to the prior."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.models import flat_latents
from vae_jax.objectives.objective import MODEL, Loss
from vae_jax.objectives.terms import draw_joint, elbo_terms
from vae_jax.settings import setting
from vae_jax.shapes import Scalar


def maximum_mean_discrepancy(z: Float[Array, "n d"], prior: Float[Array, "m d"]) -> Scalar:
    """Unbiased estimate of the squared MMD between two samples, with a Gaussian kernel.

    `E k(z, z') + E k(p, p') - 2 E k(z, p)` with `k(a, b) = exp(-|a - b|^2 / (2 D))`: the width of the
    kernel grows with the square root of the dimension, like distances between samples of the prior.

    Args:
        z: Latents of different images.
        prior: Latents from the prior.

    Returns:
        Without a unit; may be slightly negative, as the estimate is unbiased.

    Source:
        Gretton et al. 2012, lemma 6; Zhao et al., arXiv 1706.02262.
    """

    def kernel(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Float[Array, "n m"]:
        distances = jnp.sum(jnp.square(a[:, None] - b[None, :]), axis=-1)
        return jnp.exp(-distances / (2.0 * z.shape[-1]))

    def mean_of_pairs(a: Float[Array, "n d"]) -> Scalar:
        n = a.shape[0]
        return (jnp.sum(kernel(a, a)) - n) / (n * (n - 1))

    return mean_of_pairs(z) + mean_of_pairs(prior) - 2.0 * jnp.mean(kernel(z, prior))


@dataclasses.dataclass(frozen=True)
class Mmd:
    """`-reconstruction + (1 - alpha) KL + (alpha + lambda - 1) MMD`, which isn't a mean over images.

    Attributes:
        alpha: Weight of the mutual information; with 1 there is no KL term, as in a Wasserstein autoencoder.
        weight: `lambda`.

    Source:
        Zhao et al., arXiv 1706.02262, eq. 6.
    """

    alpha: float = setting(1.0, "weight of the mutual information; 1: no KL term", minimum=-100.0)
    weight: float = setting(500.0, "of the discrepancy", minimum=0.0)

    @property
    def needs(self) -> tuple[str, ...]:
        """See `Objective`."""
        return ("reparameterized",) if self.alpha == 1.0 else ("reparameterized", "density")

    def __call__(self, model, variables, batch, key, step):
        """See `Objective`."""
        noise_key, prior_key = jax.random.split(key)
        joint = draw_joint(model, variables, batch, noise_key)
        terms = elbo_terms(joint)
        prior = model.sample_prior(variables, prior_key, batch.x.shape[0], batch.context)
        discrepancy = maximum_mean_discrepancy(
            flat_latents(joint.z, model.latents)[0], flat_latents(prior, model.latents)
        )
        loss = (self.alpha + self.weight - 1.0) * discrepancy - jnp.mean(terms.reconstruction)
        if terms.kl is not None and self.alpha != 1.0:
            loss += (1.0 - self.alpha) * jnp.mean(terms.kl)
        return Loss({MODEL: loss}, terms, joint.state)
