"""A linear decoder with Gaussian noise is probabilistic PCA, whose log p(x) and posterior are known.

Tipping & Bishop 1999: for x = W z + b + noise of variance s, p(x) = N(b, W W' + s I), and
p(z|x) = N(M^-1 W'(x - b), s M^-1) with M = W'W + s I.
"""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.stats
import sklearn.datasets
import sklearn.decomposition

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.evaluation import make_bound, make_importance_estimate, map_images
from vae_jax.models import VAE, init_variables
from vae_jax.sharding import batch_mesh

SHAPE = (8, 8, 1)
LATENTS = 6
MAX_VALUE = 16
KEY = jax.random.key(7)
BATCH = 40


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """p(x|z) = N(x; W z + b, s I), in float64, with whatever posterior it is given."""

    weights: np.ndarray
    bias: np.ndarray
    variance: float

    @property
    def precision(self) -> np.ndarray:
        """Of p(z|x)."""
        return np.eye(LATENTS) + self.weights.T @ self.weights / self.variance

    @property
    def encoder(self) -> np.ndarray:
        """The matrix A of E[z|x] = A (x - b)."""
        return np.linalg.solve(self.precision, self.weights.T) / self.variance

    def log_likelihood(self, x: np.ndarray) -> np.ndarray:
        covariance = self.weights @ self.weights.T + self.variance * np.eye(64)
        return np.atleast_1d(scipy.stats.multivariate_normal(self.bias, covariance).logpdf(x))

    def kl_to_posterior(self, x: np.ndarray, mean: np.ndarray, variances: np.ndarray) -> np.ndarray:
        """KL(N(mean, diag(variances)) || p(z|x)) of two Gaussians, in the textbook's form."""
        shift = mean - (x - self.bias) @ self.encoder.T
        distance = np.einsum("ni,ij,nj->n", shift, self.precision, shift)
        log_determinants = np.linalg.slogdet(self.precision)[1] + np.sum(np.log(variances))
        return 0.5 * (np.sum(np.diag(self.precision) * variances) + distance - LATENTS - log_determinants)

    def params(self, mean_weights: np.ndarray, mean_bias: np.ndarray, variances: np.ndarray) -> dict:
        """Those of the project's model, whose posterior is N(mean_weights x + mean_bias, diag(variances))."""
        constant = {"kernel": np.zeros((64, LATENTS)), "bias": np.log(variances)}
        tree = {
            "posterior": {"mean": {"kernel": mean_weights.T, "bias": mean_bias}, "logvar": constant},
            "decoder": {"Dense_0": {"kernel": self.weights.T, "bias": self.bias}},
            "likelihood": {"logvar": np.log(self.variance)},
        }
        fresh = jax.eval_shape(lambda: init_variables(vae(), jax.random.key(0), SHAPE))
        return jax.tree.map(lambda old, new: np.asarray(new, old.dtype).reshape(old.shape), fresh, {"params": tree})

    def exact_params(self) -> dict:
        return self.params(self.encoder, -self.encoder @ self.bias, np.diag(np.linalg.inv(self.precision)))


def vae() -> VAE:
    return build_model(
        ModelConfig(network="mlp(hidden=())", likelihood="gaussian(learned=True)", latents=LATENTS), SHAPE
    )


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return sklearn.datasets.load_digits().images[:200].astype(np.uint8)[..., np.newaxis]


@pytest.fixture(scope="module")
def x(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / MAX_VALUE


@pytest.fixture(scope="module")
def pca(x: np.ndarray) -> sklearn.decomposition.PCA:
    return sklearn.decomposition.PCA(LATENTS).fit(x)


@pytest.fixture(scope="module")
def fitted(pca: sklearn.decomposition.PCA) -> LinearModel:
    """The maximum-likelihood solution, but for PCA's variances, which divide by n - 1."""
    lengths = np.sqrt(pca.explained_variance_ - pca.noise_variance_)
    return LinearModel(pca.components_.T * lengths, pca.mean_, float(pca.noise_variance_))


@pytest.fixture(scope="module")
def skewed() -> LinearModel:
    """Columns that aren't orthogonal: no diagonal posterior is exact."""
    rng = np.random.default_rng(0)
    return LinearModel(rng.normal(size=(64, LATENTS)) * 0.15, rng.uniform(size=64), 0.2)


def importance(params: dict, images: np.ndarray, num_samples: int, chunk: int = 64, batch: int = BATCH, devices=None):
    function = make_importance_estimate(vae(), num_samples, chunk)
    mesh = batch_mesh(batch, devices)
    return map_images(lambda batch, ids: function(params, batch, ids, KEY), images, MAX_VALUE, batch, mesh)


@pytest.mark.long
def test_bound_is_log_likelihood_at_the_exact_posterior(fitted: LinearModel, images: np.ndarray, x: np.ndarray) -> None:
    estimate = importance(fitted.exact_params(), images, num_samples=1000, chunk=250)
    error = estimate.elbo - fitted.log_likelihood(x)
    # The KL is exact but the reconstruction term is sampled, so the bound has a standard error.
    assert abs(error.mean()) < 4 * np.sqrt(estimate.elbo_variance.sum()) / len(x) < 0.05


def test_every_importance_weight_is_the_likelihood_at_the_exact_posterior(
    fitted: LinearModel, images: np.ndarray, x: np.ndarray, pca: sklearn.decomposition.PCA
) -> None:
    # p(x, z) / q(z|x) = p(x) whatever z is: a few samples do, and only rounding is left.
    estimate = importance(fitted.exact_params(), images, num_samples=3)
    np.testing.assert_allclose(estimate.log_likelihood, fitted.log_likelihood(x), atol=2e-3)
    np.testing.assert_allclose(estimate.log_likelihood, pca.score_samples(x), atol=2e-3)
    np.testing.assert_allclose(estimate.effective_sample_size, 3.0, rtol=1e-5)
    assert estimate.log_likelihood_variance.max() < 1e-6


def test_bound_lies_below_by_the_divergence_to_the_posterior(
    skewed: LinearModel, images: np.ndarray, x: np.ndarray
) -> None:
    variances = np.full(LATENTS, 0.3)
    matrix, bias = 0.8 * skewed.encoder, 0.2 - skewed.encoder @ skewed.bias
    estimate = importance(skewed.params(matrix, bias, variances), images, num_samples=1000, chunk=250)
    exact = skewed.log_likelihood(x) - skewed.kl_to_posterior(x, x @ matrix.T + bias, variances)
    scores = (estimate.elbo - exact) / np.sqrt(estimate.elbo_variance)
    assert np.all(exact < skewed.log_likelihood(x) - 0.1)
    # 200 standard normal scores: their mean has the standard error 0.07, their spread 0.05.
    assert abs(scores.mean()) < 0.28
    assert abs(scores.std() - 1.0) < 0.2


def test_training_bound_is_the_same_bound(skewed: LinearModel, images: np.ndarray, x: np.ndarray) -> None:
    params = skewed.exact_params()
    variances = np.diag(np.linalg.inv(skewed.precision))
    bound = make_bound(vae(), num_samples=200)
    mesh = batch_mesh(BATCH)
    watched = map_images(lambda batch, ids: bound(params, batch, ids, KEY), images, MAX_VALUE, BATCH, mesh)
    mean = (x - skewed.bias) @ skewed.encoder.T
    exact = skewed.log_likelihood(x) - skewed.kl_to_posterior(x, mean, variances)
    error = watched.terms.elbo - exact
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(x)) < 0.1


def test_estimate_lies_within_its_standard_errors(skewed: LinearModel, images: np.ndarray, x: np.ndarray) -> None:
    estimate = importance(skewed.exact_params(), images, num_samples=1000, chunk=250)
    scores = (estimate.log_likelihood - skewed.log_likelihood(x)) / np.sqrt(estimate.log_likelihood_variance)
    assert estimate.effective_sample_size.min() > 100
    # 200 standard normal scores, but for a bias of the order of the standard error's square.
    assert abs(scores.mean()) < 0.28
    assert abs(scores.std() - 1.0) < 0.2


def test_estimate_agrees_with_scikit_learn(
    fitted: LinearModel, images: np.ndarray, x: np.ndarray, pca: sklearn.decomposition.PCA
) -> None:
    inverse = np.linalg.inv(fitted.precision)
    params = fitted.params(fitted.encoder, 0.1 - fitted.encoder @ fitted.bias, 1.3 * np.diag(inverse))
    estimate = importance(params, images, num_samples=1000, chunk=250)
    error = estimate.log_likelihood.mean(dtype=np.float64) - pca.score(x)
    assert abs(error) < 4 * np.sqrt(estimate.log_likelihood_variance.sum()) / len(x) < 0.05


@pytest.mark.long
def test_estimate_rises_with_samples_and_stays_below(skewed: LinearModel, images: np.ndarray, x: np.ndarray) -> None:
    # One image under 400 names: the noise is keyed by the name, so these are 400 repetitions.
    repeated = np.repeat(images[:1], 400, axis=0)
    params = skewed.params(0.5 * skewed.encoder, -0.5 * skewed.encoder @ skewed.bias, np.full(LATENTS, 0.4))
    exact = skewed.log_likelihood(x[:1])[0]
    estimates = [importance(params, repeated, k).log_likelihood.astype(np.float64) for k in (1, 8, 64)]
    rises = np.diff(estimates, axis=0)
    # Each rise is several of its standard errors, and none of the means has passed the exact value.
    assert np.all(rises.mean(axis=1) > 3 * rises.std(axis=1) / np.sqrt(400))
    assert all(estimate.mean() < exact for estimate in estimates)


def test_weights_average_to_the_likelihood(skewed: LinearModel, images: np.ndarray, x: np.ndarray) -> None:
    # Before the logarithm the estimate has no bias; a factor K or a wrong sign would show here.
    repeated = np.repeat(images[:1], 400, axis=0)
    variances = 1.2 * np.diag(np.linalg.inv(skewed.precision))
    params = skewed.params(skewed.encoder, -skewed.encoder @ skewed.bias, variances)
    for num_samples in (1, 10):
        estimate = importance(params, repeated, num_samples).log_likelihood
        ratio = np.exp(estimate - skewed.log_likelihood(x[:1])[0])
        assert abs(ratio.mean() - 1.0) < 4 * ratio.std() / np.sqrt(400) < 0.3


@pytest.fixture(scope="module")
def at_once(skewed: LinearModel, images: np.ndarray):
    return importance(skewed.exact_params(), images[:60], num_samples=50, batch=60, devices=jax.devices()[:1])


@pytest.mark.long
@pytest.mark.parametrize(("chunk", "batch", "num_devices"), [(1, 40, 8), (7, 50, 2), (50, 7, 1), (64, 64, 8)])
def test_neither_chunks_nor_batches_nor_devices_matter(
    skewed: LinearModel, images: np.ndarray, at_once, chunk: int, batch: int, num_devices: int
) -> None:
    devices = jax.devices()[:num_devices]
    divided = importance(skewed.exact_params(), images[:60], 50, chunk, batch, devices)
    for name, ours, theirs in zip(at_once._fields, divided, at_once, strict=True):
        # Variances and sample sizes are made of exponentials of the weights, whose rounding they multiply.
        is_nats = name in ("log_likelihood", "elbo", "reconstruction", "kl")
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-5 if is_nats else 2e-4, atol=1e-4 * (not is_nats), err_msg=name
        )
