"""Where the gap between the bound and log p(x) comes from: the family of q, or the encoder."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vae_jax.evaluation.batches import sum_over_samples
from vae_jax.evaluation.local import (
    Family,
    diagonal_family,
    diagonal_like,
    flow_family,
    flow_from_diagonal,
    model_family,
    optimized,
)
from vae_jax.flows import GaussianParameters
from vae_jax.models import Batch, Model, Variables, flat_latents, nested_latents, num_latents
from vae_jax.noise import normal_per_image
from vae_jax.shapes import Count, ImageIds, Noise, PerImage, PerSample, RandomKey

_SAMPLES_AT_ONCE = 20


class Bound(NamedTuple):
    """`E_q[log p(x, z) - log q(z)]` of each image, or a difference of two, in nats.

    Attributes:
        value: Mean over samples of z.
        variance: Of that mean over repetitions.
    """

    value: PerImage
    variance: PerImage


class Gaps(NamedTuple):
    """Bounds of each image with different q, measured on the same noise.

    Attributes:
        encoder: With the encoder's q(z|x): the ELBO.
        own: With the best q of the model's own family.
        diagonal: With the best diagonal Gaussian.
        flow: With the best flow.
        amortization: `own - encoder`: what a better encoder would gain.
        flow_gain: `flow - diagonal`: what a larger family gains at most, seen from the diagonal one.
        log_likelihood: log p(x) by importance sampling from the best flow.
        log_likelihood_variance: Its variance over repetitions.
        effective_sample_size: Of the importance weights.
    """

    encoder: Bound
    own: Bound
    diagonal: Bound
    flow: Bound
    amortization: Bound
    flow_gain: Bound
    log_likelihood: PerImage
    log_likelihood_variance: PerImage
    effective_sample_size: PerImage


def make_gaps(
    model: Model,
    num_steps: int = 500,
    num_samples: int = 4,
    num_measured: int = 500,
    num_flows: int = 4,
    learning_rate: float = 0.02,
) -> Callable[..., Gaps]:
    """A compiled function that optimizes q for each image and measures what that gains.

    With q* the best member of a family,
    `log p(x) - L[q] = (log p(x) - L[q*]) + (L[q*] - L[q])`: the approximation gap and the amortization gap.
    An optimizer that stops early makes the first too large and the second too small by the same amount.

    Args:
        model: The model; its posterior has a density.
        num_steps: Of Adam, in each family.
        num_samples: Samples of z per image and step.
        num_measured: Samples of z per image for the bounds afterwards.
        num_flows: Planar flows behind the full-covariance Gaussian of the flow family.
        learning_rate: Of Adam's first step.

    Returns:
        `(variables, batch, image_ids, key) -> Gaps`; noise is a function of (key, image, sample) alone.

    Source:
        Cremer et al., arXiv 1801.03558, section 3.
    """

    @jax.jit
    def gaps(variables: Variables, batch: Batch, image_ids: ImageIds, key: RandomKey) -> Gaps:
        from_encoder = model.encode(variables, batch)

        def log_joint(z: Float[Array, "k b d"]) -> PerSample:
            joint = model.joint(variables, batch, from_encoder, z=nested_latents(z, model.latents))
            return joint.log_likelihood + joint.log_prior

        def best(family: Family, start: Any, stream: int) -> Any:
            def noise_at(step: Count) -> Noise:
                of_step = jax.random.fold_in(jax.random.fold_in(key, stream), step)
                return normal_per_image(of_step, image_ids, jnp.arange(num_samples), family.noise_size)

            return optimized(family, start, log_joint, noise_at, num_steps, learning_rate)

        latents = num_latents(model)
        own, diagonal, flow = model_family(model, variables), diagonal_family(latents), flow_family(latents)
        best_own = best(own, from_encoder, 0)
        if "diagonal_gaussian" in model.traits:
            best_diagonal = GaussianParameters(*(flat_latents(part, model.latents) for part in best_own))
        else:
            best_diagonal = best(diagonal, diagonal_like(own, best_own, image_ids, jax.random.fold_in(key, 4)), 1)
        best_flow = best(flow, flow_from_diagonal(best_diagonal, jax.random.fold_in(key, 5), num_flows), 2)

        def terms_of(sample_ids: Int[Array, "k"]) -> tuple[Array, dict[str, Array]]:
            def weights_of(family: Family, parameters: Any) -> Array:
                noise = normal_per_image(jax.random.fold_in(key, 3), image_ids, sample_ids, family.noise_size)
                z, log_q = family.transform(parameters, noise)
                return log_joint(z) - log_q

            terms = {"encoder": weights_of(own, from_encoder), "own": weights_of(own, best_own)}
            terms |= {"diagonal": weights_of(diagonal, best_diagonal), "flow": weights_of(flow, best_flow)}
            terms["amortization"] = terms["own"] - terms["encoder"]
            terms["flow_gain"] = terms["flow"] - terms["diagonal"]
            return terms["flow"], terms

        weights, moments = sum_over_samples(terms_of, num_measured, _SAMPLES_AT_ONCE)
        bounds = {name: Bound(each.mean, each.variance_of_mean(num_measured)) for name, each in moments.items()}
        return Gaps(**bounds, **weights.estimates)

    return gaps
