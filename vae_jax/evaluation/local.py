"""Posteriors of single images: families of q(z) whose parameters are optimized image by image, without an encoder."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vae_jax.flows import GaussianParameters, planar
from vae_jax.models import Model, Variables, flat_latents, nested_latents
from vae_jax.noise import normal_per_image
from vae_jax.posteriors import DiagonalGaussian, FullGaussian, FullGaussianParameters
from vae_jax.shapes import Count, ImageIds, Noise, PerSample, RandomKey, Samples, Scalar

_DRAWS = 256
_SMALLEST_STDDEV = 1e-4
# Gradients far below this, in nats, are rounding; with a small epsilon Adam would walk on them as on large ones.
_ADAM_EPSILON = 1e-3

LogJoint = Callable[[Samples], PerSample]
"""z to log p(x, z) in nats, for the images at hand."""
NoiseAt = Callable[[Count], Noise]
"""The number of a step to the noise of its samples of z."""


class Family(NamedTuple):
    """A family of distributions of z.

    Attributes:
        noise_size: Normal numbers that one sample takes.
        transform: `(parameters, noise) -> (z, log q(z))` for parameters of each image.
        log_prob: `(parameters, z) -> log q(z)`, or None where it isn't known for any z.
    """

    noise_size: int
    transform: Callable[[Any, Noise], tuple[Samples, PerSample]]
    log_prob: Callable[[Any, Samples], PerSample] | None


class FlowParameters(NamedTuple):
    """A Gaussian with any covariance, and the planar flows that follow it."""

    base: FullGaussianParameters
    u: Float[Array, "b f d"]
    w: Float[Array, "b f d"]
    b: Float[Array, "b f"]


def model_family(model: Model, variables: Variables) -> Family:
    """The family of the model's own posterior; a flow's networks stay as they were trained."""

    def transform(q: Any, noise: Noise) -> tuple[Float[Array, "k b d"], Any]:
        z, log_q = model.draw(variables, q, noise)
        return flat_latents(z, model.latents), log_q

    def log_prob(q: Any, z: Float[Array, "k b d"]) -> PerSample:
        return model.log_posterior(variables, q, nested_latents(z, model.latents))

    return Family(model.noise_size, transform, log_prob if "density_anywhere" in model.traits else None)


def diagonal_family(latents: int) -> Family:
    """Gaussians with independent components."""
    posterior = DiagonalGaussian(latents)
    return Family(latents, posterior.transform, posterior.log_prob)


def diagonal_like(family: Family, parameters: Any, image_ids: ImageIds, key: RandomKey) -> Any:
    """Parameters of the diagonal family with the moments of another family's distributions."""
    noise = normal_per_image(key, image_ids, jnp.arange(_DRAWS), family.noise_size)
    z, _ = family.transform(parameters, noise)
    stddev = jnp.maximum(jnp.std(z, axis=0), _SMALLEST_STDDEV)
    return GaussianParameters(jnp.mean(z, axis=0), 2.0 * jnp.log(stddev))


def flow_family(latents: int) -> Family:
    """Gaussians with any covariance (an inverse autoregressive flow that is linear), then planar flows.

    It contains the diagonal family.
    """
    base = FullGaussian(latents)

    def transform(parameters: FlowParameters, noise: Samples) -> tuple[Samples, PerSample]:
        z, log_prob = base.transform(parameters.base, noise)
        for index in range(parameters.b.shape[1]):
            z, log_det = planar(z, parameters.u[:, index], parameters.w[:, index], parameters.b[:, index])
            log_prob = log_prob - log_det
        return z, log_prob

    return Family(latents, transform, None)


def flow_from_diagonal(diagonal: GaussianParameters, key: RandomKey, num_flows: int) -> FlowParameters:
    """Parameters of the flow family with the distributions of the diagonal one."""
    num_images, latents = diagonal.mean.shape
    flows = (num_images, num_flows, latents)
    # The flows start as the identity; their normals differ, or all would learn the same.
    normals = jax.random.normal(key, flows[1:], diagonal.mean.dtype) / math.sqrt(latents)
    return FlowParameters(
        base=FullGaussianParameters(
            diagonal.mean, 0.5 * diagonal.logvar, jnp.zeros((num_images, latents, latents), diagonal.mean.dtype)
        ),
        u=jnp.zeros(flows, diagonal.mean.dtype),
        w=jnp.broadcast_to(normals, flows),
        b=jnp.zeros(flows[:2], diagonal.mean.dtype),
    )


def optimized(
    family: Family, start: Any, log_joint: LogJoint, noise_at: NoiseAt, num_steps: int, learning_rate: float
) -> Any:
    """Parameters that maximize the bound `E_q[log p(x, z) - log q(z)]` of each image.

    Adam moves every number by itself, so that images don't act on each other; its rate falls to 0 along a cosine.
    Where log q is known anywhere its own parameters get no gradient, whose expectation is 0: at an exact
    posterior the gradient is then 0 without noise.

    Args:
        family: Where q is sought.
        start: Its parameters for each image.
        log_joint: log p(x, z).
        noise_at: The noise of each step.
        num_steps: Of Adam.
        learning_rate: Of the first step.

    Returns:
        Parameters of each image.

    Source:
        Cremer et al., arXiv 1801.03558, section 5.1; the gradient: Roeder et al., arXiv 1703.09194.
    """
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps), eps=_ADAM_EPSILON)

    def negative_bound(parameters: Any, noise: Noise) -> Scalar:
        z, log_q = family.transform(parameters, noise)
        if family.log_prob is not None:
            log_q = family.log_prob(jax.lax.stop_gradient(parameters), z)
        return -jnp.sum(jnp.mean(log_joint(z) - log_q, axis=0))

    def step(index: Count, carry: tuple[Any, optax.OptState]) -> tuple[Any, optax.OptState]:
        parameters, opt_state = carry
        gradients = jax.grad(negative_bound)(parameters, noise_at(index))
        updates, opt_state = tx.update(gradients, opt_state)
        return optax.apply_updates(parameters, updates), opt_state

    return jax.lax.fori_loop(0, num_steps, step, (start, tx.init(start)))[0]
