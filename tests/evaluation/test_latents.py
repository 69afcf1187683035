"""What latents carry, where a closed form says what they must."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from linear_gaussian import LinearGaussian

from vae_jax.evaluation import active_units, aggregate_terms, label_accuracy, make_latent_terms
from vae_jax.models import Batch

KEY = jax.random.key(0)


def aggregate(truth: LinearGaussian, variances: np.ndarray, num_images: int):
    x = jnp.asarray(truth.sample(num_images), jnp.float32)
    params = truth.variables(variances)
    terms = make_latent_terms(truth.vae())(params, Batch(x), jnp.arange(num_images), KEY)
    return params, terms, aggregate_terms(truth.vae(), params, terms)


@pytest.mark.long
def test_mutual_information_lies_between_its_bounds() -> None:
    # x is Gaussian and so is z: q(z) = N(0, A C A' + V), I = 1/2 log det q(z) - 1/2 log det V, in closed form.
    truth = LinearGaussian.draw((4, 4, 1), 2, variance=0.5)
    variances = np.full(2, 0.25)
    covariance_of_x = truth.weights @ truth.weights.T + 0.5 * np.eye(16)
    of_z = truth.encoder @ covariance_of_x @ truth.encoder.T + np.diag(variances)
    information = 0.5 * (np.linalg.slogdet(of_z)[1] - np.sum(np.log(variances)))
    divergence = 0.5 * (np.trace(of_z) - 2 - np.linalg.slogdet(of_z)[1])
    _, _terms, found = aggregate(truth, variances, 4000)
    slack = 0.08  # Four standard errors of means over 4,000 images, whose spread is about 1.2.
    low, high = found.mutual_information
    assert information - 0.2 < low < information + slack
    assert information - slack < high < information + 0.2
    low, high = found.aggregate_kl
    assert divergence - 0.2 < low < divergence + slack
    assert divergence - slack < high < divergence + 0.2
    assert abs(found.kl - (information + divergence)) < slack
    assert found.largest_lower_bound == np.log(4000) and found.upper_bound_from in ("prior", "others", "mixture")


def test_lower_bound_never_passes_the_log_of_the_number_of_images() -> None:
    truth = LinearGaussian.draw((4, 4, 1), 4, variance=0.01)
    _, _, found = aggregate(truth, np.full(4, 1e-4), 50)
    assert found.mutual_information[0] <= np.log(50) + 1e-4 < found.mutual_information[1]
    assert found.aggregate_kl[0] >= 0.0


def test_aggregate_density_is_scipys_mixture() -> None:
    truth = LinearGaussian.draw((3, 3, 1), 2)
    _params, terms, found = aggregate(truth, np.full(2, 0.3), 30)
    mixture = np.zeros((30, 30))
    for n, z in enumerate(np.asarray(terms.z, np.float64)):
        for m, mean in enumerate(np.asarray(terms.mean, np.float64)):
            mixture[n, m] = scipy.stats.multivariate_normal(mean, 0.3 * np.eye(2)).logpdf(z)
    own = np.diag(mixture)
    lower = np.mean(own - (np.logaddexp.reduce(mixture, axis=1) - np.log(30)))
    np.testing.assert_allclose(found.mutual_information[0], lower, rtol=1e-4)
    np.testing.assert_allclose(terms.log_posterior, own, rtol=1e-3, atol=1e-4)
    by_hand = 0.5 * (np.square(terms.mean) + 0.3 - 1 - np.log(0.3))
    np.testing.assert_allclose(terms.kl_per_dimension, by_hand, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(terms.log_prior, scipy.stats.norm.logpdf(np.asarray(terms.z)).sum(1), rtol=1e-5)


def test_units_are_active_where_means_differ() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=(5000, 4)) * np.array([1.0, 0.05, 0.2, 0.0]) + 7.0
    assert active_units(means).tolist() == [0, 2]
    # A model that has diverged has none, and says nothing else about it.
    assert active_units(np.full((3, 2), np.inf)).tolist() == []


def test_labels_that_the_latents_carry_are_found_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    latents = np.eye(3)[labels] * 6 + rng.normal(size=(600, 3))
    told = label_accuracy(latents[:400], labels[:400], latents[400:], labels[400:])
    assert told["nearest_neighbours"] > 0.97 and told["logistic_regression"] > 0.97
    untold = label_accuracy(rng.normal(size=(400, 3)), labels[:400], rng.normal(size=(200, 3)), labels[400:])
    for name in ("nearest_neighbours", "logistic_regression", "most_frequent"):
        assert 0.2 < untold[name] < 0.47
