"""log p(x) by importance sampling from q(z|x), in chunks of bounded memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from vae_jax.evaluation.batches import Given, ImageSource, map_images, sum_over_samples
from vae_jax.memory import available_memory
from vae_jax.models import Batch, Model, Variables, init_variables
from vae_jax.noise import normal_per_image
from vae_jax.shapes import ImageIds, PerImage, RandomKey
from vae_jax.sharding import filled_up, put, replicated, whole_mesh

_IMAGES_AT_ONCE = 100


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

    log_likelihood: PerImage
    log_likelihood_variance: PerImage
    effective_sample_size: PerImage
    elbo: PerImage
    elbo_variance: PerImage
    reconstruction: PerImage
    kl: PerImage


def make_importance_estimate(
    model: Model, num_samples: int, samples_per_chunk: int
) -> Callable[..., ImportanceEstimate]:
    """A compiled function that estimates log p(x).

    `log p(x) ~= log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)` with `z_k ~ q(z|x)`.

    Args:
        model: The model.
        num_samples: Samples per image (K).
        samples_per_chunk: How many of them are held in memory at a time.

    Returns:
        `(variables, batch, image_ids, key) -> ImportanceEstimate`. The noise is a function of (key, image,
        sample) alone, so that neither chunks nor devices change the result beyond rounding.

    Source:
        Rezende et al., arXiv 1401.4082, appendix E; Burda et al., arXiv 1509.00519.
    """

    @jax.jit
    def importance_estimate(
        variables: Variables, batch: Batch, image_ids: ImageIds, key: RandomKey
    ) -> ImportanceEstimate:
        q = model.encode(variables, batch)

        def terms_of(sample_ids: Int[Array, "k"]) -> tuple[Array, dict[str, Array]]:
            noise = normal_per_image(key, image_ids, sample_ids, model.noise_size)
            joint = model.joint(variables, batch, q, noise=noise)
            sampled = joint.log_weights if joint.kl is None else joint.log_likelihood
            return joint.log_weights, {"reconstruction": joint.log_likelihood, "bound": sampled}

        weights, moments = sum_over_samples(terms_of, num_samples, samples_per_chunk)
        reconstruction, bound = moments["reconstruction"], moments["bound"]
        kl = model.kl(variables, q)
        kl = None if kl is None else jnp.sum(kl, axis=-1)
        # Without a closed form `bound` is the whole ELBO, else only its reconstruction term.
        elbo = bound.mean if kl is None else reconstruction.mean - kl
        return ImportanceEstimate(
            **weights.estimates,
            elbo=elbo,
            elbo_variance=bound.variance_of_mean(num_samples),
            reconstruction=reconstruction.mean,
            kl=reconstruction.mean - elbo if kl is None else kl,
        )

    return importance_estimate


def estimate_images(
    model: Model,
    variables: Variables,
    images: ImageSource,
    max_value: int,
    key: RandomKey,
    num_samples: int,
    memory_mb: int,
    given: Given = None,
    on_batch: Callable[[int], object] | None = None,
) -> ImportanceEstimate:
    """Estimates log p(x) of each image, on all devices.

    Args:
        model: The model.
        variables: Its variables.
        images: Pixels from 0 to `max_value`; see `map_images`.
        max_value: Largest value a pixel can take.
        key: What the noise comes from.
        num_samples: Samples per image (K).
        memory_mb: As in `samples_at_once`.
        given: Class or context of each image, which only a conditional model uses.
        on_batch: Called with the number of images that are done, after each batch.

    Returns:
        NumPy arrays over the images.
    """
    mesh = whole_mesh()
    batch_size = filled_up(min(_IMAGES_AT_ONCE, len(images)), mesh)
    at_once = min(num_samples, samples_at_once(model, images.shape[1:], batch_size, memory_mb))
    function = make_importance_estimate(model, num_samples, at_once)
    variables = put(variables, replicated(mesh))
    return map_images(
        lambda batch, ids: function(variables, batch, ids, key),
        images,
        max_value,
        batch_size,
        mesh,
        given if model.context_size else None,
        on_batch,
    )


def samples_at_once(model: Model, shape: tuple[int, ...], batch_size: int, memory_mb: int) -> int:
    """How many samples per image fit into a bound on memory.

    Adds up every array that one sample per image makes on its way, as if none were freed or fused, which
    is more than a compiler needs.

    Args:
        model: The model.
        shape: Of one example.
        batch_size: Images per call.
        memory_mb: The bound, in units of 2^20 bytes; on CPUs half of the memory that is free, if that is less.

    Returns:
        At least 1.
    """
    context: Any = jax.ShapeDtypeStruct((batch_size, model.context_size), jnp.float32) if model.context_size else None
    x: Any = jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)
    noise = jax.ShapeDtypeStruct((1, batch_size, model.noise_size), jnp.float32)
    variables = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), shape))
    joint = jax.make_jaxpr(lambda variables, batch, noise: model.joint(variables, batch, noise=noise)[1:5])
    jaxpr = joint(variables, Batch(x, context=context), noise)
    num_bytes = sum(var.aval.size * var.aval.dtype.itemsize for eqn in jaxpr.eqns for var in eqn.outvars)
    bound, free = memory_mb * 2**20, available_memory() if jax.default_backend() == "cpu" else None
    return max(1, (bound if free is None else min(bound, free // 2)) // num_bytes)
