"""What the width of the decoder's noise costs: log p(x) with it refitted and nothing else."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vae_jax.evaluation.batches import sum_over_samples
from vae_jax.models import Batch, Model, Variables
from vae_jax.noise import normal_per_image
from vae_jax.shapes import ImageIds, RandomKey

_SAMPLES_AT_ONCE = 5
# Log factors of the width: from a twentieth to twenty times.
_WIDEST = 3.0
_POINTS = 13
_REFINEMENTS = 3


class RescaledEstimate(NamedTuple):
    """log p(x) of each image for each of G widths of the noise, by importance sampling from q(z|x).

    Attributes:
        log_likelihood: In nats.
        log_likelihood_variance: Over repetitions (delta method).
        effective_sample_size: Of the weights; it falls as the posterior moves away from q.
    """

    log_likelihood: Float[Array, "b g"]
    log_likelihood_variance: Float[Array, "b g"]
    effective_sample_size: Float[Array, "b g"]


def make_rescaled_estimate(model: Model, num_samples: int) -> Callable[..., RescaledEstimate]:
    """A compiled function that estimates log p(x) with the noise of p(x|z) wider or narrower.

    Args:
        model: The model, with the trait `noise_width`.
        num_samples: Importance samples per image (K), the same for all widths.

    Returns:
        `(variables, batch, image_ids, key, log_factors) -> RescaledEstimate`.
    """

    @jax.jit
    def rescaled_estimate(
        variables: Variables, batch: Batch, image_ids: ImageIds, key: RandomKey, log_factors: Float[Array, "g"]
    ) -> RescaledEstimate:
        q = model.encode(variables, batch)

        def terms_of(sample_ids: Int[Array, "k"]) -> tuple[Array, dict[str, Array]]:
            noise = normal_per_image(key, image_ids, sample_ids, model.noise_size)
            joint = model.joint(variables, batch, q, noise=noise)
            each = jnp.stack([joint.px.log_prob(batch.x, batch.observed, factor) for factor in log_factors])
            log_weights = jnp.moveaxis(each + (joint.log_weights - joint.log_likelihood), 0, -1)
            return log_weights.reshape(len(sample_ids), -1), {}

        weights, _ = sum_over_samples(terms_of, num_samples, _SAMPLES_AT_ONCE)
        shape = (len(batch.x), len(log_factors))
        return RescaledEstimate(**{name: part.reshape(shape) for name, part in weights.estimates.items()})

    return rescaled_estimate


def best_log_factor(mean_log_likelihood: Callable[[Float[np.ndarray, "g"]], Float[np.ndarray, "g"]]) -> float:
    """Log of the factor of the width that maximizes the mean log-likelihood, to within 0.002.

    Args:
        mean_log_likelihood: Log factors to mean nats per image; with a single maximum.

    Returns:
        A number in [-3, 3].
    """
    center, reach = 0.0, _WIDEST
    for _ in range(_REFINEMENTS):
        factors = np.clip(np.linspace(center - reach, center + reach, _POINTS), -_WIDEST, _WIDEST)
        values = mean_log_likelihood(factors)
        center = float(factors[np.nanargmax(values)])
        reach = 2.0 * reach / (_POINTS - 1)
    return center
