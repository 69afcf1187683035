"""log p(x) by importance sampling from q(z|x), in chunks of bounded memory."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from vae_jax.memory import available_memory
from vae_jax.noise import normal_per_image
from vae_jax.numerics import LogMeanExp, Moments
from vae_jax.vae import VAE, Label, Params, apply


class ImportanceEstimate(NamedTuple):
    """What K importance samples say of each image; in nats where it is a log-density.

    Attributes:
        log_likelihood: log 1/K sum_k w_k, in expectation below log p(x) and rising with K.
        log_likelihood_variance: Its variance over repetitions (delta method).
        effective_sample_size: (sum w)^2 / sum w^2, from 1 to K.
        elbo: The bound from the same samples, its KL in closed form where there is one.
        elbo_variance: Its variance over repetitions.
        reconstruction: E_q[log p(x|z)].
        kl: KL(q(z|x) || p(z)).
    """

    log_likelihood: Float[Array, "b"]
    log_likelihood_variance: Float[Array, "b"]
    effective_sample_size: Float[Array, "b"]
    elbo: Float[Array, "b"]
    elbo_variance: Float[Array, "b"]
    reconstruction: Float[Array, "b"]
    kl: Float[Array, "b"]


def make_importance_estimate(model: VAE, num_samples: int, samples_per_chunk: int) -> Callable[..., ImportanceEstimate]:
    """A compiled function that estimates log p(x).

    `log p(x) ~= log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)` with `z_k ~ q(z|x)`.

    Args:
        model: The model.
        num_samples: Samples per image (K).
        samples_per_chunk: How many of them are held in memory at a time.

    Returns:
        `(params, x, image_ids, key, label=None) -> ImportanceEstimate`. The noise is a function of (key, image,
        sample) alone, so that neither chunks nor devices change the result beyond rounding.

    Source:
        Rezende et al., arXiv 1401.4082, appendix E; Burda et al., arXiv 1509.00519.
    """
    num_chunks = -(-num_samples // samples_per_chunk)

    @jax.jit
    def importance_estimate(
        params: Params,
        x: Float[Array, "b h w c"],
        image_ids: Int[Array, "b"],
        key: Key[Array, ""],
        label: Label = None,
    ) -> ImportanceEstimate:
        parameters = apply(model, params, "encode", x, label)

        def add_chunk(
            chunk: Int[Array, ""], carry: tuple[LogMeanExp, Moments, Moments]
        ) -> tuple[LogMeanExp, Moments, Moments]:
            weights, reconstruction, bound = carry
            sample_ids = chunk * samples_per_chunk + jnp.arange(samples_per_chunk)
            noise = normal_per_image(key, image_ids, sample_ids, model.noise_size)
            joint = apply(model, params, "joint_terms", parameters, x, noise, label)
            valid = (sample_ids < num_samples).astype(joint.log_likelihood.dtype)
            sampled = joint.log_weights if joint.kl is None else joint.log_likelihood
            return (
                weights.add(joint.log_weights, valid),
                reconstruction.add(joint.log_likelihood, valid, weights.count),
                bound.add(sampled, valid, weights.count),
            )

        num_images = x.shape[0]
        start = (
            LogMeanExp.empty(num_images, x.dtype),
            Moments.empty(num_images, x.dtype),
            Moments.empty(num_images, x.dtype),
        )
        weights, reconstruction, bound = jax.lax.fori_loop(0, num_chunks, add_chunk, start)
        kl = apply(model, params, "closed_form_kl", parameters)
        # Without a closed form `bound` is the whole ELBO, else only its reconstruction term.
        elbo = bound.mean if kl is None else reconstruction.mean - kl
        return ImportanceEstimate(
            log_likelihood=weights.value,
            log_likelihood_variance=weights.variance,
            effective_sample_size=weights.effective_sample_size,
            elbo=elbo,
            elbo_variance=bound.variance_of_mean(num_samples),
            reconstruction=reconstruction.mean,
            kl=reconstruction.mean - elbo if kl is None else kl,
        )

    return importance_estimate


def samples_at_once(model: VAE, image_shape: tuple[int, int, int], batch_size: int, memory_mb: int) -> int:
    """How many samples per image fit into a bound on memory.

    Adds up every array that one sample per image makes on its way, as if none were freed or fused, which
    is more than a compiler needs.

    Args:
        model: The model.
        image_shape: Height, width, channels.
        batch_size: Images per call.
        memory_mb: The bound, in units of 2^20 bytes; on CPUs half of the memory that is free, if that is less.

    Returns:
        At least 1.
    """
    x = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)
    noise = jax.ShapeDtypeStruct((1, batch_size, model.noise_size), jnp.float32)
    label = jax.ShapeDtypeStruct((batch_size,), jnp.int32) if model.num_classes else None
    variables = jax.eval_shape(model.init, jax.random.key(0), x, noise, label)
    jaxpr = jax.make_jaxpr(model.apply)(variables, x, noise, label)
    num_bytes = sum(var.aval.size * var.aval.dtype.itemsize for eqn in jaxpr.eqns for var in eqn.outvars)
    bound, free = memory_mb * 2**20, available_memory() if jax.default_backend() == "cpu" else None
    return max(1, (bound if free is None else min(bound, free // 2)) // num_bytes)
