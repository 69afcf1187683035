"""The terms of the evidence lower bound."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from vae_jax.models import Batch, Joint, Model, Variables
from vae_jax.noise import standard_normal
from vae_jax.shapes import PerImage, RandomKey


class ElboTerms(NamedTuple):
    """The bound of each image and its two terms, in nats: `elbo = reconstruction - kl`.

    Attributes:
        elbo: Lower bound of log p(x); None for a posterior without a density.
        reconstruction: E_q[log p(x|z)], mostly negative.
        kl: KL(q(z|x) || p(z)), or its Monte Carlo estimate; None for a posterior without a density.
    """

    elbo: PerImage | None
    reconstruction: PerImage
    kl: PerImage | None


def draw_joint(
    model: Model, variables: Variables, batch: Batch, key: RandomKey, num_samples: int = 1, q: Any = None
) -> Any:
    """The terms of a training step at fresh samples of z, as `Joint`.

    Args:
        model: The model.
        variables: Its variables.
        batch: The examples.
        key: For the noise of z.
        num_samples: Of z for each example.
        q: Parameters of q(z|x), if they are at hand.
    """
    noise = standard_normal(key, (num_samples, batch.x.shape[0], model.noise_size))
    return model.joint(variables, batch, q, noise=noise, train=True)


def elbo_terms(joint: Joint, analytic_kl: bool = True) -> ElboTerms:
    """The bound from K samples of z.

    With the KL in closed form (eq. 10 of the paper):
    `1/K sum_k log p(x|z_k) - KL(q(z|x) || p(z))`.

    By Monte Carlo (eq. 6):
    `1/K sum_k log p(x|z_k) + log p(z_k) - log q(z_k|x)`.

    Note that the second has log p(x, z), not log p(x|z), beside -log q(z|x).

    Args:
        joint: Terms of `[K, B]` samples.
        analytic_kl: Whether to use the closed form, if the model has one.

    Returns:
        Nats per image; an unbiased estimate of the bound in either form.
    """
    reconstruction = jnp.mean(joint.log_likelihood, axis=0)
    if joint.log_posterior is None:
        return ElboTerms(None, reconstruction, None)
    if joint.kl is not None and analytic_kl:
        kl = jnp.sum(joint.kl, axis=-1)
    else:
        kl = jnp.mean(joint.log_posterior - joint.log_prior, axis=0)
    return ElboTerms(reconstruction - kl, reconstruction, kl)
