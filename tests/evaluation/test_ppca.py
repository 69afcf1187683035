"""Probabilistic PCA of digits, whose log p(x) is known: the bound, importance sampling, and what must not matter."""

import jax
import numpy as np
import pytest
import sklearn.datasets
import sklearn.decomposition
from linear_gaussian import LinearGaussian

from vae_jax.evaluation import make_bound, make_importance_estimate, map_images
from vae_jax.sharding import batch_mesh

SHAPE, LATENTS, MAX_VALUE, BATCH = (8, 8, 1), 6, 16, 40
KEY = jax.random.key(7)
IMAGES = sklearn.datasets.load_digits().images[:200].astype(np.uint8)[..., np.newaxis]
X = IMAGES.reshape(200, 64) / MAX_VALUE


def fitted() -> tuple[LinearGaussian, sklearn.decomposition.PCA]:
    """The maximum-likelihood solution, but for PCA's variances, which divide by n - 1."""
    pca = sklearn.decomposition.PCA(LATENTS).fit(X)
    lengths = np.sqrt(pca.explained_variance_ - pca.noise_variance_)
    return LinearGaussian(pca.components_.T * lengths, pca.mean_, float(pca.noise_variance_), SHAPE), pca


# Columns that aren't orthogonal: no diagonal posterior is exact.
SKEWED = LinearGaussian.draw(SHAPE, LATENTS, variance=0.2)


def importance(truth, variables, images, num_samples: int, chunk: int = 64, batch: int = BATCH, devices=None):
    function = make_importance_estimate(truth.vae(), num_samples, chunk)
    mesh = batch_mesh(batch, devices)
    return map_images(lambda batch, ids: function(variables, batch, ids, KEY), images, MAX_VALUE, batch, mesh)


def test_every_importance_weight_is_the_likelihood_at_the_exact_posterior() -> None:
    # p(x, z) / q(z|x) = p(x) whatever z is: a few samples do, and only rounding is left.
    truth, pca = fitted()
    estimate = importance(truth, truth.variables(), IMAGES, num_samples=3)
    np.testing.assert_allclose(estimate.log_likelihood, truth.log_likelihood(X), atol=2e-3)
    np.testing.assert_allclose(estimate.log_likelihood, pca.score_samples(X), atol=2e-3)
    np.testing.assert_allclose(estimate.effective_sample_size, 3.0, rtol=1e-5)
    assert estimate.log_likelihood_variance.max() < 1e-6


@pytest.mark.long
def test_bound_lies_below_by_the_divergence_to_the_posterior() -> None:
    variances, shift = np.full(LATENTS, 0.3), 0.2
    variables = SKEWED.variables(variances, shift)
    exact = SKEWED.log_likelihood(X) - SKEWED.kl_to_posterior(np.full((200, LATENTS), shift), variances)
    assert np.all(exact < SKEWED.log_likelihood(X) - 0.1)
    estimate = importance(SKEWED, variables, IMAGES, num_samples=1000, chunk=250)
    # 200 standard normal scores: their mean has the standard error 0.07, their spread 0.05.
    scores = (estimate.elbo - exact) / np.sqrt(estimate.elbo_variance)
    assert abs(scores.mean()) < 0.28 and abs(scores.std() - 1.0) < 0.2
    # And that of importance sampling, but for a bias of the order of the standard error's square.
    scores = (estimate.log_likelihood - SKEWED.log_likelihood(X)) / np.sqrt(estimate.log_likelihood_variance)
    assert abs(scores.mean()) < 0.28 and abs(scores.std() - 1.0) < 0.2
    # The bound that training watches is the same.
    bound = make_bound(SKEWED.vae(), num_samples=200)
    watched = map_images(lambda x, ids: bound(variables, x, ids, KEY), IMAGES, MAX_VALUE, BATCH, batch_mesh(BATCH))
    error = watched.terms.elbo - exact
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(200) < 0.2


@pytest.mark.long
def test_estimate_rises_with_samples_and_weights_average_to_the_likelihood() -> None:
    # One image under 400 names: the noise is keyed by the name, so these are 400 repetitions.
    repeated, exact = np.repeat(IMAGES[:1], 400, axis=0), SKEWED.log_likelihood(X[:1])[0]
    variables = SKEWED.variables(np.full(LATENTS, 0.4), shift=0.3)
    estimates = [importance(SKEWED, variables, repeated, k).log_likelihood.astype(np.float64) for k in (1, 8, 64)]
    rises = np.diff(estimates, axis=0)
    # Each rise is several of its standard errors, and none of the means has passed the exact value.
    assert np.all(rises.mean(axis=1) > 3 * rises.std(axis=1) / np.sqrt(400))
    assert all(estimate.mean() < exact for estimate in estimates)
    # Before the logarithm the estimate has no bias; a factor K or a wrong sign would show here.
    variables = SKEWED.variables(1.2 * np.diag(SKEWED.covariance))
    for num_samples in (1, 10):
        ratio = np.exp(importance(SKEWED, variables, repeated, num_samples).log_likelihood - exact)
        assert abs(ratio.mean() - 1.0) < 4 * ratio.std() / np.sqrt(400) < 0.4


@pytest.mark.long
@pytest.mark.parametrize(("chunk", "batch", "num_devices"), [(1, 40, 8), (7, 50, 2), (50, 7, 1)])
def test_neither_chunks_nor_batches_nor_devices_matter(chunk: int, batch: int, num_devices: int) -> None:
    devices, variables = jax.devices(), SKEWED.variables()
    at_once = importance(SKEWED, variables, IMAGES[:60], num_samples=50, batch=60, devices=devices[:1])
    divided = importance(SKEWED, variables, IMAGES[:60], 50, chunk, batch, devices[:num_devices])
    for name, ours, theirs in zip(at_once._fields, divided, at_once, strict=True):
        # Variances and sample sizes are made of exponentials of the weights, whose rounding they multiply.
        is_nats = name in ("log_likelihood", "elbo", "reconstruction", "kl")
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-5 if is_nats else 2e-4, atol=1e-4 * (not is_nats), err_msg=name
        )
