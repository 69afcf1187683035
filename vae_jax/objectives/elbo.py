"""The evidence lower bound in both of its forms (Kingma & Welling 2014)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vae_jax.vae import VAE, JointTerms, Params, apply


class ElboTerms(NamedTuple):
    """The bound of each image and the two terms it is made of, in nats: `elbo = reconstruction - kl`.

    Attributes:
        elbo: Lower bound of log p(x).
        reconstruction: E_q[log p(x|z)], mostly negative.
        kl: KL(q(z|x) || p(z)), or its Monte Carlo estimate.
    """

    elbo: Float[Array, "b"]
    reconstruction: Float[Array, "b"]
    kl: Float[Array, "b"]


def elbo_terms(joint: JointTerms, analytic_kl: bool = True) -> ElboTerms:
    """The bound from K samples of z.

    With the KL in closed form (eq. 10 of the paper):
    `1/K sum_k log p(x|z_k) - KL(q(z|x) || p(z))`.

    By Monte Carlo (eq. 6):
    `1/K sum_k log p(x|z_k) + log p(z_k) - log q(z_k|x)`.

    Note that the second has log p(x, z), not log p(x|z), beside -log q(z|x).

    Args:
        joint: Terms of `[K, B]` samples.
        analytic_kl: Whether to use the closed form, where the model has one.

    Returns:
        Nats per image; an unbiased estimate of the bound in either form.
    """
    reconstruction = jnp.mean(joint.log_likelihood, axis=0)
    closed_form = joint.kl if analytic_kl else None
    kl = jnp.mean(joint.log_posterior - joint.log_prior, axis=0) if closed_form is None else closed_form
    return ElboTerms(reconstruction - kl, reconstruction, kl)


@dataclasses.dataclass(frozen=True)
class Elbo:
    """Minus the bound, averaged over the batch.

    Attributes:
        num_samples: Samples of z per image (L in the paper).
        analytic_kl: The KL in closed form where the model has one.
    """

    num_samples: int = 1
    analytic_kl: bool = True

    def __call__(
        self, model: VAE, params: Params, x: Float[Array, "b h w c"], key: Key[Array, ""], step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], ElboTerms]:
        """Surrogate to minimize, and the terms of each image.

        Args:
            model: The model.
            params: Its parameters.
            x: Images, as the likelihood wants them.
            key: Consumed for the noise of z.
            step: Not used; the bound is the same at every step.

        Returns:
            `-mean(elbo)` in nats, and the terms per image.
        """
        noise = jax.random.normal(key, (self.num_samples, x.shape[0], model.noise_size))
        terms = elbo_terms(apply(model, params, "__call__", x, noise), self.analytic_kl)
        return -jnp.mean(terms.elbo), terms
