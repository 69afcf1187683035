"""The gap decomposition on linear-Gaussian models, where each gap is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_gaussian import LinearGaussian

from vae_jax.evaluation import Gaps, make_gaps
from vae_jax.models import Batch

KEY = jax.random.key(3)
IMAGES = 40


def measure(truth: LinearGaussian, params, posterior: str = "diagonal_gaussian") -> tuple:
    x = truth.sample(IMAGES).astype(np.float32)
    gaps = make_gaps(truth.vae(posterior), num_steps=400, num_measured=400)
    found: Gaps = jax.device_get(gaps(params, Batch(jnp.asarray(x)), jnp.arange(IMAGES), KEY))
    return x, found


def close(value: np.ndarray, variance: np.ndarray, exact: np.ndarray | float, slack: float = 0.0) -> bool:
    """Whether the mean over images lies within four standard errors of the estimator, and a slack."""
    error = np.asarray(value, np.float64) - exact
    return abs(error.mean()) < 4 * np.sqrt(np.sum(variance)) / len(error) + slack


@pytest.mark.long
@pytest.mark.parametrize(("shape", "latents"), [((4, 4, 1), 2), ((5, 6, 2), 5)])
def test_diagonal_family_falls_short_by_the_known_divergence(shape: tuple[int, int, int], latents: int) -> None:
    truth = LinearGaussian.draw(shape, latents)
    variances, shift = np.full(latents, 0.4), 0.25
    x, gaps = measure(truth, truth.variables(variances, shift))
    exact = truth.log_likelihood(x)
    of_encoder = truth.kl_to_posterior(np.full((IMAGES, latents), shift), variances)
    assert truth.diagonal_gap() > 0.05
    assert close(gaps.encoder.value, gaps.encoder.variance, exact - of_encoder)
    # What Adam leaves over is a hundredth of a nat at most.
    assert close(gaps.own.value, gaps.own.variance, exact - truth.diagonal_gap(), slack=0.01)
    assert close(gaps.amortization.value, gaps.amortization.variance, of_encoder - truth.diagonal_gap(), slack=0.01)
    # The flow family holds every Gaussian: its best member is p(z|x), and every weight is p(x). Its gradients have
    # noise even there, which leaves a few hundredths of a nat.
    assert close(gaps.flow.value, gaps.flow.variance, exact, slack=0.03)
    assert close(gaps.flow_gain.value, gaps.flow_gain.variance, truth.diagonal_gap(), slack=0.03)
    np.testing.assert_allclose(gaps.log_likelihood, exact, atol=0.05)
    assert gaps.effective_sample_size.mean() > 380


@pytest.mark.long
def test_exact_posterior_has_no_gap_at_all() -> None:
    truth = LinearGaussian.draw((5, 5, 1), 3)
    x, gaps = measure(truth, truth.exact_variables(), "full_gaussian")
    # Every weight is p(x), so that not even noise is left.
    np.testing.assert_allclose(gaps.encoder.value, truth.log_likelihood(x), atol=1e-3)
    np.testing.assert_allclose(gaps.own.value, truth.log_likelihood(x), atol=2e-3)
    np.testing.assert_allclose(gaps.amortization.value, 0.0, atol=2e-3)
    assert close(gaps.diagonal.value, gaps.diagonal.variance, truth.log_likelihood(x) - truth.diagonal_gap(), 0.01)


@pytest.mark.long
def test_stated_errors_cover_the_truth() -> None:
    # One score for each image: the bound at the encoder's q against its exact value.
    truth = LinearGaussian.draw((4, 4, 1), 3)
    variances = np.full(3, 0.5)
    x = truth.sample(300).astype(np.float32)
    gaps = make_gaps(truth.vae(), num_steps=1, num_measured=200)
    found = jax.device_get(gaps(truth.variables(variances, 0.2), Batch(jnp.asarray(x)), jnp.arange(300), KEY))
    exact = truth.log_likelihood(x) - truth.kl_to_posterior(np.full((300, 3), 0.2), variances)
    scores = (found.encoder.value - exact) / np.sqrt(found.encoder.variance)
    assert 0.9 < np.mean(np.abs(scores) < 1.96) < 0.99
    assert abs(scores.mean()) < 4 / np.sqrt(300)
