"""What the latents carry: active units, mutual information, the aggregate posterior, and labels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import sklearn.linear_model
import sklearn.mixture
import sklearn.neighbors
import sklearn.pipeline
import sklearn.preprocessing
from jaxtyping import Array, Float, Int

from vae_jax.models import Batch, Model, Variables, flat_latents
from vae_jax.noise import normal_per_image
from vae_jax.shapes import ImageIds, Means, PerImage, RandomKey

ACTIVE_VARIANCE = 0.01
_NEIGHBOURS = 5
# As many Gaussians as the images can determine: each has (D + 1)(D + 2) / 2 numbers.
_MOST_COMPONENTS = 10
_IMAGES_PER_PARAMETER = 4
_LEAST_VARIANCE = 1e-6
_LOGISTIC_ITERATIONS = 1000


class LatentTerms(NamedTuple):
    """What is known of the posterior of each image.

    Attributes:
        q: q(z|x).
        mean: Its mean, or what it has in its place.
        kl_per_dimension: In nats; None where KL(q(z|x) || p(z)) is no sum over dimensions in closed form.
        z: A sample, as the model has it.
        log_posterior: log q(z|x) there; None for a posterior without a density.
        log_prior: log p(z) there.
    """

    q: Any
    mean: Means
    kl_per_dimension: Means | None
    z: Any
    log_posterior: PerImage | None
    log_prior: PerImage


class AggregateEstimate(NamedTuple):
    """Terms of the aggregate posterior `q(z) = E_x q(z|x)` in nats, each between two bounds.

    With z_n from q(z|x_n) and N images, log q(z_n) is estimated with x_n among the N, which makes the mutual
    information too small, and never more than log N. It is at most `E[log q(z|x) - log r(z)]` for any density r:
    the least is taken of the prior, of the mixture of the other images' posteriors, and of a mixture of Gaussians
    fitted to half of the z and measured on the other half.

    Attributes:
        mutual_information: I(x; z) under q: lower and upper bound, in expectation.
        aggregate_kl: KL(q(z) || p(z)): lower and upper bound. `kl = mutual_information + aggregate_kl`.
        kl: KL(q(z|x) || p(z)), by the same samples.
        standard_error: Of each of the bounds at most, over images.
        upper_bound_from: Which density the upper bound is from: `prior`, `others` or `mixture`.
        largest_lower_bound: log N, above which the mutual information can't be found to be.
    """

    mutual_information: tuple[float, float]
    aggregate_kl: tuple[float, float]
    kl: float
    standard_error: float
    upper_bound_from: str
    largest_lower_bound: float


def make_latent_terms(model: Model) -> Callable[..., LatentTerms]:
    """A compiled function `(variables, batch, image_ids, key) -> LatentTerms`."""

    @jax.jit
    def latent_terms(variables: Variables, batch: Batch, image_ids: ImageIds, key: RandomKey) -> LatentTerms:
        q = model.encode(variables, batch)
        noise = normal_per_image(key, image_ids, jnp.arange(1), model.noise_size)
        joint = model.joint(variables, batch, q, noise=noise)
        return LatentTerms(
            q=q,
            mean=flat_latents(model.point(variables, q), model.latents),
            kl_per_dimension=joint.kl if "kl_per_dimension" in model.traits else None,
            z=jax.tree.map(lambda leaf: leaf[0], joint.z),
            log_posterior=None if joint.log_posterior is None else joint.log_posterior[0],
            log_prior=joint.log_prior[0],
        )

    return latent_terms


def active_units(means: Float[np.ndarray, "n d"]) -> Int[np.ndarray, "a"]:
    """Dimensions that tell images apart: the variance of their posterior mean over images exceeds 0.01.

    Args:
        means: Posterior means.

    Source:
        Burda et al., arXiv 1509.00519, section 5.2.
    """
    # Of a model that has diverged the variance is NaN, which is above nothing.
    with np.errstate(invalid="ignore", over="ignore"):
        return np.flatnonzero(np.var(means, axis=0) > ACTIVE_VARIANCE)


def aggregate_terms(
    model: Model, variables: Variables, terms: LatentTerms, rows_at_once: int = 50
) -> AggregateEstimate:
    """Mutual information and divergence of the aggregate posterior, between bounds.

    Args:
        model: The model, with the trait `density_anywhere`.
        variables: Its variables.
        terms: Of N images, at least 2.
        rows_at_once: Samples whose density under all N posteriors is in memory at a time.

    Raises:
        ValueError: If there is one image only, or no density at other images' z.

    Source:
        The lower bound: van den Oord et al., arXiv 1807.03748, with the exact density ratio; the upper one:
        Poole et al., arXiv 1905.06922, eq. 1 and 13; the decomposition: Hoffman & Johnson 2016.
    """
    if "density_anywhere" not in model.traits:
        raise ValueError("the model lacks the trait density_anywhere: its aggregate has no density to compute")
    num_images = len(terms.log_prior)
    if num_images < 2:
        raise ValueError("an aggregate of one image tells nothing; use at least 2")

    @jax.jit
    def log_densities(z: Any) -> Float[Array, "r n"]:
        every = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:, None], (len(leaf), num_images, *leaf.shape[1:])), z)
        return model.log_posterior(variables, terms.q, every)

    with_self, without = np.empty(num_images), np.empty(num_images)
    for start in range(0, num_images, rows_at_once):
        rows = np.minimum(np.arange(start, start + rows_at_once), num_images - 1)
        some = jax.tree.map(lambda leaf, rows=rows: jnp.asarray(leaf)[rows], terms.z)
        values = np.asarray(log_densities(some), np.float64)[: num_images - start]
        rows = rows[: len(values)]
        with_self[rows] = np.logaddexp.reduce(values, axis=1) - np.log(num_images)
        values[np.arange(len(rows)), rows] = -np.inf
        without[rows] = np.logaddexp.reduce(values, axis=1) - np.log(num_images - 1)
    own, prior = (np.asarray(part, np.float64) for part in (terms.log_posterior, terms.log_prior))
    kl, lower = float(np.mean(own - prior)), float(np.mean(own - with_self))
    by_mixture = _above_by_mixture(np.asarray(flat_latents(terms.z, model.latents)), own)
    above = {"prior": kl, "others": float(np.mean(own - without)), "mixture": by_mixture}
    upper_from = min(above, key=lambda name: above[name])
    # The mixture is measured on half of the images, whose mean is that much less certain.
    spreads = [np.std(part, ddof=1) for part in (own - with_self, own - prior, own - without)]
    standard_error = float(max(spreads) * np.sqrt((2 if upper_from == "mixture" else 1) / num_images))
    return AggregateEstimate(
        mutual_information=(lower, above[upper_from]),
        aggregate_kl=(kl - above[upper_from], kl - lower),
        kl=kl,
        standard_error=standard_error,
        upper_bound_from=upper_from,
        largest_lower_bound=float(np.log(num_images)),
    )


def _above_by_mixture(z: Float[np.ndarray, "n d"], log_posterior: Float[np.ndarray, "n"]) -> float:
    """`E[log q(z|x) - log r(z)]` with r fitted to every second z and measured on the others; infinite for too few z."""
    fitted, measured = np.asarray(z[::2], np.float64), np.asarray(z[1::2], np.float64)
    components = min(_MOST_COMPONENTS, len(fitted) // (_IMAGES_PER_PARAMETER * (1 + z.shape[1])))
    if components < 1:
        return float("inf")
    mixture = sklearn.mixture.GaussianMixture(components, reg_covar=_LEAST_VARIANCE, random_state=0)
    return float(np.mean(log_posterior[1::2] - mixture.fit(fitted).score_samples(measured)))


def label_accuracy(
    train: Float[np.ndarray, "n d"],
    train_labels: Int[np.ndarray, "n"],
    test: Float[np.ndarray, "m d"],
    test_labels: Int[np.ndarray, "m"],
) -> dict[str, float]:
    """How well labels can be read off the latents: shares of the test images that are classified correctly.

    Args:
        train: Latents to learn from.
        train_labels: Their classes.
        test: Latents to classify.
        test_labels: Their classes.

    Returns:
        `nearest_neighbours` (5 of them) and `logistic_regression` (on standardized latents), and `most_frequent`:
        what always naming the commonest class would give.
    """
    neighbours = sklearn.neighbors.KNeighborsClassifier(_NEIGHBOURS).fit(train, train_labels)
    regression = sklearn.pipeline.make_pipeline(
        sklearn.preprocessing.StandardScaler(), sklearn.linear_model.LogisticRegression(max_iter=_LOGISTIC_ITERATIONS)
    ).fit(train, train_labels)
    commonest = np.bincount(train_labels).argmax()
    return {
        "nearest_neighbours": float(neighbours.score(test, test_labels)),
        "logistic_regression": float(regression.score(test, test_labels)),
        "most_frequent": float(np.mean(test_labels == commonest)),
    }
