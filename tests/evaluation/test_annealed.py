"""Annealed importance sampling on linear-Gaussian models, whose log p(x) scipy knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_gaussian import LinearGaussian

from vae_jax.evaluation import Schedule, make_annealed_estimate, make_pilot, sigmoid_temperatures
from vae_jax.evaluation.annealed_path import begin, transition
from vae_jax.models import Batch

KEY = jax.random.key(4)
SIZES = [((4, 4, 1), 2), pytest.param((5, 6, 2), 5, marks=pytest.mark.manual)]
STARTS = ("prior", "posterior")
# Both starts are tried for what is quick; the long forms of the start from the prior are run by hand.
ONE_LONG = [pytest.param(start, marks=[pytest.mark.manual] if start == "prior" else []) for start in STARTS]


def schedule_for(truth: LinearGaussian, params, start: str, num_temperatures: int, images: np.ndarray) -> Schedule:
    pilot = make_pilot(truth.vae(), 4, 5, start)
    return pilot(
        params,
        Batch(jnp.asarray(images)),
        jnp.arange(len(images)),
        jax.random.key(9),
        sigmoid_temperatures(num_temperatures),
    )


@pytest.mark.long
@pytest.mark.parametrize("start", ONE_LONG)
@pytest.mark.parametrize(("shape", "latents"), SIZES)
def test_scores_of_the_exact_log_likelihood_are_standard_normal(
    shape: tuple[int, int, int], latents: int, start: str
) -> None:
    # 96 images are 96 seeds. With chains enough the errors are those that are stated: 95% lie within two of them.
    truth = LinearGaussian.draw(shape, latents)
    x = truth.sample(96).astype(np.float32)
    params = truth.variables(shift=0.1)
    schedule = schedule_for(truth, params, start, 40 * latents, x[:8])
    function = make_annealed_estimate(truth.vae(), 64, 5, start)
    estimate = jax.device_get(function(params, Batch(x), jnp.arange(96), KEY, schedule))
    error = np.asarray(estimate.log_likelihood, np.float64) - truth.log_likelihood(x)
    scores = error / np.sqrt(estimate.log_likelihood_variance)
    assert estimate.effective_sample_size.mean() > 20
    assert np.mean(np.abs(scores) < 1.96) > 0.87  # Four standard errors below 0.95.
    assert abs(scores.mean()) < 4 / np.sqrt(96) + 0.15  # log of a mean is low by half its variance
    assert 0.7 < scores.std() < 1.35


@pytest.mark.long
def test_transition_keeps_the_posterior() -> None:
    # From exact samples of p(z|x) to exact samples of it: moments of 4,000 chains.
    truth = LinearGaussian.draw((4, 4, 1), 3)
    params, x = truth.variables(), truth.sample(1).astype(np.float32)
    rng = np.random.default_rng(0)
    mean = truth.encoder @ (x.reshape(-1) - truth.bias)
    z = rng.multivariate_normal(mean, truth.covariance, (4000, 1)).astype(np.float32)
    path, *_ = begin(truth.vae(), params, Batch(jnp.asarray(x)), jnp.arange(1), KEY, 2, "prior")
    noise = jnp.asarray(rng.normal(size=(4000, 1, 4)), jnp.float32)
    # A step so long that a third is refused: without the test of Metropolis the moments would be wrong.
    moved, _, accepted = transition(path, jnp.asarray(z), jnp.asarray(1.0), jnp.asarray(1.3), 3, noise)
    assert 0.3 < accepted.mean() < 0.9
    error = np.sqrt(np.diag(truth.covariance) / 4000)
    np.testing.assert_allclose(np.asarray(moved)[:, 0].mean(0), mean, atol=4 * error.max())
    np.testing.assert_allclose(np.cov(np.asarray(moved)[:, 0].T), truth.covariance, atol=0.08)


@pytest.mark.long
@pytest.mark.parametrize("start", STARTS)
def test_pilot_finds_the_wanted_acceptance(start: str) -> None:
    truth = LinearGaussian.draw((6, 6, 1), 8)
    params, x = truth.variables(), truth.sample(30).astype(np.float32)
    schedule = schedule_for(truth, params, start, 60, x[:15])
    estimate = make_annealed_estimate(truth.vae(), 8, 5, start)(params, Batch(x), jnp.arange(30), KEY, schedule)
    assert abs(estimate.acceptance.mean() - 0.65) < 0.12


def test_temperatures_rise_from_zero_to_one() -> None:
    temperatures = np.asarray(sigmoid_temperatures(50))
    assert temperatures[0] == 0 and temperatures[-1] == 1 and len(temperatures) == 51
    steps = np.diff(temperatures)
    assert np.all(steps > 0) and steps[0] < steps[25] / 5 and steps[-1] < steps[25] / 5
