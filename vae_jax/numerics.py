"""Numerics that have no home in one distribution: streaming log-mean-exp, sums over events, intervals."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from vae_jax.shapes import Nats

LOG_2PI = math.log(2.0 * math.pi)


def flat_event(values: Shaped[Array, "*batch h w c"]) -> Shaped[Array, "*batch p"]:
    """The pixel values of each image in one axis.

    A likelihood starts with this: with a last axis of one channel the compiler's inner loops have a single turn,
    and log p(x|z) takes several times longer.
    """
    return values.reshape(*values.shape[:-3], math.prod(values.shape[-3:]))


def flat_mask(observed: Bool[Array, "*batch h w c"] | None) -> Bool[Array, "*batch p"] | None:
    """The same of a mask, where there is one."""
    return None if observed is None else flat_event(observed)


def sum_event(values: Float[Array, "*batch p"], observed: Bool[Array, "*#batch p"] | None = None) -> Nats:
    """Sums over the values that are observed (None: all) in float32, whatever they were computed in."""
    if observed is not None:
        values = jnp.where(observed, values, 0.0)
    return jnp.sum(values.astype(jnp.promote_types(values.dtype, jnp.float32)), axis=-1)


class LogMeanExp(NamedTuple):
    """Running sums of weights, enough for their mean and effective sample size.

    With `m` the running maximum of the log-weights: `total = sum exp(w - m)` and
    `total_squares = sum exp(2 (w - m))`. Adding a chunk rescales both, so nothing overflows.
    """

    maximum: Float[Array, "b"]
    total: Float[Array, "b"]
    total_squares: Float[Array, "b"]
    count: Float[Array, ""]

    @classmethod
    def empty(cls, num_images: int, dtype: jnp.dtype = jnp.float32) -> "LogMeanExp":
        """Sums of no weights at all."""
        zeros = jnp.zeros((num_images,), dtype)
        return cls(jnp.full((num_images,), -jnp.inf, dtype), zeros, zeros, jnp.zeros((), dtype))

    def add(self, log_weights: Float[Array, "k b"], valid: Float[Array, "k"] | None = None) -> "LogMeanExp":
        """Takes in a chunk of log-weights.

        Args:
            log_weights: `[K, B]`.
            valid: 1 for the samples that count and 0 for the padding of a last chunk; None if all count.

        Returns:
            The sums with the chunk added.
        """
        if valid is not None:
            log_weights = jnp.where(valid[:, None] > 0, log_weights, -jnp.inf)
        maximum = jnp.maximum(self.maximum, jnp.max(log_weights, axis=0))
        # While every weight is zero the maximum is -inf, and -inf - -inf would be NaN.
        anchor = jnp.where(jnp.isfinite(maximum), maximum, 0.0)
        rescale = jnp.exp(self.maximum - anchor)
        scaled = jnp.exp(log_weights - anchor)
        count = log_weights.shape[0] if valid is None else jnp.sum(valid)
        return LogMeanExp(
            maximum=maximum,
            total=self.total * rescale + jnp.sum(scaled, axis=0),
            total_squares=self.total_squares * rescale**2 + jnp.sum(scaled**2, axis=0),
            count=self.count + count,
        )

    @property
    def value(self) -> Float[Array, "b"]:
        """`log (1/K sum_k w_k)` of each image."""
        return self.maximum + jnp.log(self.total) - jnp.log(self.count)

    @property
    def effective_sample_size(self) -> Float[Array, "b"]:
        """`(sum w)^2 / sum w^2`, from 1 (one weight has it all) to K (all weights equal)."""
        return self.total**2 / self.total_squares

    @property
    def variance(self) -> Float[Array, "b"]:
        """Variance of `value` over repetitions, by the delta method: `(K / ESS - 1) / (K - 1)`.

        Infinite for a single weight, from which no spread can be told.
        """
        spread = jnp.maximum(self.count / self.effective_sample_size - 1.0, 0.0)
        return jnp.where(self.count > 1, spread / jnp.maximum(self.count - 1.0, 1.0), jnp.inf)

    @property
    def estimates(self) -> dict[str, Any]:
        """The three above, by the names that estimators of log p(x) give them."""
        names = ("log_likelihood", "log_likelihood_variance", "effective_sample_size")
        return dict(zip(names, (self.value, self.variance, self.effective_sample_size), strict=True))


class Moments(NamedTuple):
    """Running mean and summed squared deviation (Welford), stable for large means."""

    mean: Float[Array, "b"]
    deviation: Float[Array, "b"]

    @classmethod
    def empty(cls, num_images: int, dtype: jnp.dtype = jnp.float32) -> "Moments":
        """Of no values at all."""
        zeros = jnp.zeros((num_images,), dtype)
        return cls(zeros, zeros)

    def add(self, values: Float[Array, "k b"], valid: Float[Array, "k"], count: Float[Array, ""]) -> "Moments":
        """Takes in a chunk.

        Args:
            values: `[K, B]`.
            valid: 1 for the samples that count and 0 for the padding of a last chunk.
            count: How many samples came before it.
        """
        new = jnp.sum(valid)
        weights = valid[:, None]
        chunk_mean = jnp.sum(values * weights, axis=0) / new
        chunk_deviation = jnp.sum(jnp.square(values - chunk_mean) * weights, axis=0)
        shift = chunk_mean - self.mean
        return Moments(
            self.mean + shift * new / (count + new),
            self.deviation + chunk_deviation + jnp.square(shift) * count * new / (count + new),
        )

    def variance_of_mean(self, count: int) -> Float[Array, "b"]:
        """Variance of `mean` over repetitions; infinite for a single sample, which tells none."""
        return self.deviation / (float(count) * (count - 1)) if count > 1 else jnp.full_like(self.mean, jnp.inf)


class Estimate(NamedTuple):
    """A mean over images with its two kinds of error, all in the unit of the values.

    Attributes:
        mean: Mean over images.
        standard_error_images: Because the images are a sample of all images.
        standard_error_estimator: Because each image's value is a Monte Carlo estimate; None if exact.
        num_images: How many images the mean is over.
    """

    mean: float
    standard_error_images: float | None
    standard_error_estimator: float | None
    num_images: int

    def scaled(self, factor: float) -> "Estimate":
        """The same in another unit; errors stay positive."""
        errors = (self.standard_error_images, self.standard_error_estimator)
        scaled = [None if error is None else error * abs(factor) for error in errors]
        return Estimate(self.mean * factor, scaled[0], scaled[1], self.num_images)


def estimate(
    values: Float[np.ndarray, "n"] | Float[Array, "n"],
    estimator_variances: Float[np.ndarray, "n"] | Float[Array, "n"] | None = None,
) -> Estimate:
    """Mean over images with its errors.

    Args:
        values: One number per image.
        estimator_variances: Variance of each number as a Monte Carlo estimate; None if exact.

    Returns:
        The mean, its standard error over images (None for a single image, which tells none) and the
        standard error of the estimator (None if there is none or it can't be told).
    """
    num_images = len(values)
    exact = np.asarray(values, np.float64)
    over_images = float(exact.std(ddof=1) / math.sqrt(num_images)) if num_images > 1 else None
    of_estimator = None
    if estimator_variances is not None:
        total = float(np.sum(np.asarray(estimator_variances, np.float64)))
        of_estimator = math.sqrt(total) / num_images if math.isfinite(total) else None
    return Estimate(float(exact.mean()), over_images, of_estimator, num_images)


def estimate_text(entry: Mapping[str, Any], digits: int = 3) -> str:
    """An `Estimate`, as the mapping that result files hold, with its errors: `-95.397 ± 0.244 (images) ± ...`."""
    errors = [
        f" ± {entry[key]:.{digits}f} ({name})"
        for key, name in (("standard_error_images", "images"), ("standard_error_estimator", "estimator"))
        if entry[key] is not None
    ]
    return f"{entry['mean']:.{digits}f}{''.join(errors)}"


def bits_per_dim(nats: float, num_dims: float) -> float:
    """Turns nats per image into bits per pixel value: `-nats / (D log 2)`."""
    return -nats / (num_dims * math.log(2.0))
