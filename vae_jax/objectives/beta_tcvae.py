"""beta-TCVAE: the KL split into mutual information, total correlation and the KL of each dimension."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.objectives.objective import MODEL, Loss
from vae_jax.objectives.terms import draw_joint, elbo_terms
from vae_jax.settings import setting
from vae_jax.shapes import PerImage, Scalar


class KlParts(NamedTuple):
    """The three parts of the mean KL, in nats; they sum to `mean log q(z|x) - log p(z)`.

    Attributes:
        mutual_information: Between image and latents, under q.
        total_correlation: Of the latents, under the aggregate posterior.
        dimension_wise_kl: Of each latent's aggregate posterior to its prior, summed.
    """

    mutual_information: Scalar
    total_correlation: Scalar
    dimension_wise_kl: Scalar


def kl_parts(log_pairs: Float[Array, "b b d"], log_prior: PerImage, num_images: int) -> KlParts:
    """Minibatch-weighted estimate of the parts.

    `log q(z_i) ~= log sum_j q(z_i|x_j) - log(N B)`, and likewise for each component of z.

    Args:
        log_pairs: `[i, j, d]`: log q(z_id|x_j), where z_i was drawn from q(z|x_i).
        log_prior: log p(z_i).
        num_images: Images in the data set (N); the batch is a sample of B of them.

    Returns:
        Averages over the batch. They are biased, as the paper says: the estimate of log q(z) is too low.

    Source:
        Chen et al., arXiv 1802.04942, eq. 2 and appendix C.1.
    """
    batch = log_pairs.shape[0]
    log_total = math.log(num_images * batch)
    log_joint = jnp.diagonal(jnp.sum(log_pairs, axis=-1))
    log_aggregate = jax.nn.logsumexp(jnp.sum(log_pairs, axis=-1), axis=1) - log_total
    log_product = jnp.sum(jax.nn.logsumexp(log_pairs, axis=1) - log_total, axis=-1)
    return KlParts(
        mutual_information=jnp.mean(log_joint - log_aggregate),
        total_correlation=jnp.mean(log_aggregate - log_product),
        dimension_wise_kl=jnp.mean(log_product - log_prior),
    )


@dataclasses.dataclass(frozen=True)
class BetaTcvae:
    """`-reconstruction + MI + beta TC + dimension-wise KL`, which isn't a mean over images.

    Attributes:
        beta: Weight of the total correlation; with 1 the loss is minus the bound by Monte Carlo.
        num_images: Images in the data set.

    Source:
        Chen et al., arXiv 1802.04942, eq. 4.
    """

    num_images: int
    beta: float = setting(1.0, "weight of the total correlation", minimum=0.0)

    needs = ("density", "reparameterized", "factorized")

    def __call__(self, model, variables, batch, key, step):
        """See `Objective`."""
        q = model.encode(variables, batch, train=True)
        joint = draw_joint(model, variables, batch, key, q=q)
        # Each z_i with the parameters of every x_j.
        log_pairs = model.log_posterior(variables, q, joint.z[0][:, None], each=True)
        parts = kl_parts(log_pairs, joint.log_prior[0], self.num_images)
        terms = elbo_terms(joint)
        loss = (
            parts.mutual_information
            + self.beta * parts.total_correlation
            + parts.dimension_wise_kl
            - jnp.mean(terms.reconstruction)
        )
        return Loss({MODEL: loss}, terms, joint.state)
