"""Annealed importance sampling on linear-Gaussian models, whose log p(x) scipy knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from linear_gaussian import LinearGaussian
from small_parts import small

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.evaluation import Schedule, make_annealed_estimate, make_pilot, sigmoid_temperatures, simulate
from vae_jax.evaluation.annealed_path import begin, transition
from vae_jax.models import Batch, init_variables
from vae_jax.sharding import replicated, split_batch

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
@pytest.mark.parametrize("double", [False, pytest.param(True, marks=pytest.mark.manual)])
@pytest.mark.parametrize(("shape", "latents"), SIZES)
def test_scores_of_the_exact_log_likelihood_are_standard_normal(
    shape: tuple[int, int, int], latents: int, double: bool, start: str
) -> None:
    # 96 images are 96 seeds. With chains enough the errors are those that are stated: 95% lie within two of them.
    with jax.enable_x64(double):
        truth = LinearGaussian.draw(shape, latents)
        x = truth.sample(96).astype(np.float64 if double else np.float32)
        params = truth.variables(shift=0.1)
        schedule = schedule_for(truth, params, start, 40 * latents, x[:8])
        function = make_annealed_estimate(truth.vae(), 64, 5, start)
        estimate = jax.device_get(function(params, Batch(x), jnp.arange(96), KEY, schedule))
        assert estimate.log_likelihood.dtype == x.dtype
    error = np.asarray(estimate.log_likelihood, np.float64) - truth.log_likelihood(x)
    scores = error / np.sqrt(estimate.log_likelihood_variance)
    assert estimate.effective_sample_size.mean() > 20
    assert np.mean(np.abs(scores) < 1.96) > 0.87  # Four standard errors below 0.95.
    assert abs(scores.mean()) < 4 / np.sqrt(96) + 0.15  # log of a mean is low by half its variance
    assert 0.7 < scores.std() < 1.35


@pytest.mark.manual
@pytest.mark.parametrize("start", STARTS)
def test_weights_are_unbiased_forward_and_in_reverse(start: str) -> None:
    # One chain each: E[w] = p(x), and from an exact sample of the posterior E[1/w] = 1 / p(x).
    truth = LinearGaussian.draw((3, 3, 1), 2)
    params = truth.variables(shift=0.2)
    num_images = 3000
    x, z = simulate(truth.vae(), params, jax.random.key(1), num_images)
    schedule = schedule_for(truth, params, start, 60, np.asarray(x[:20]))
    ids = jnp.arange(num_images)
    below = make_annealed_estimate(truth.vae(), 1, 4, start)(params, Batch(x), ids, KEY, schedule).log_likelihood
    above = make_annealed_estimate(truth.vae(), 1, 4, start)(params, Batch(x), ids, KEY, schedule, z).log_likelihood
    exact = truth.log_likelihood(np.asarray(x, np.float64))
    for ratio in (np.exp(np.asarray(below) - exact), np.exp(exact - np.asarray(above))):
        assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(num_images) < 0.2
    assert below.mean() < exact.mean() < above.mean()


@pytest.mark.manual
@pytest.mark.parametrize("start", ONE_LONG)
def test_bracket_holds_and_closes_with_more_temperatures(start: str) -> None:
    truth = LinearGaussian.draw((5, 5, 1), 4, variance=0.1)
    params = truth.variables(shift=0.3)
    x, z = simulate(truth.vae(), params, jax.random.key(2), 200)
    ids, exact = jnp.arange(200), truth.log_likelihood(np.asarray(x, np.float64))
    widths = []
    for num_temperatures in (3, 12, 48):
        schedule = schedule_for(truth, params, start, num_temperatures, np.asarray(x[:20]))
        below = make_annealed_estimate(truth.vae(), 4, 5, start)(params, Batch(x), ids, KEY, schedule).log_likelihood
        above = make_annealed_estimate(truth.vae(), 4, 5, start)(params, Batch(x), ids, KEY, schedule, z).log_likelihood
        low, high = (np.asarray(each, np.float64) - exact for each in (below, above))
        # The bounds hold in expectation: up to three standard errors of the mean over images.
        assert low.mean() < 3 * low.std() / np.sqrt(200)
        assert high.mean() > -3 * high.std() / np.sqrt(200)
        widths.append(high.mean() - low.mean())
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > -0.01


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


@pytest.mark.parametrize(
    "posterior",
    [pytest.param(name, marks=pytest.mark.manual) for name in ("iaf", "planar", "hierarchical", "full_gaussian")],
)
def test_every_posterior_and_prior_can_be_annealed(posterior: str) -> None:
    # Against importance sampling in NumPy with 200,000 draws from the prior of two or three latents.
    prior = "hierarchical" if posterior == "hierarchical" else "mixture"
    config = ModelConfig(network="mlp(hidden=(6,))", latents=2, posterior=small(posterior), prior=small(prior))
    model = build_model(config, (3, 3, 1))
    params = init_variables(model, jax.random.key(0), (3, 3, 1))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (4, 3, 3, 1)), jnp.float32)
    temperatures = sigmoid_temperatures(100)
    schedule = make_pilot(model, 8, 5)(params, Batch(x), jnp.arange(4), KEY, temperatures)
    estimate = make_annealed_estimate(model, 64, 5)(params, Batch(x), jnp.arange(4), KEY, schedule)
    z = model.sample_prior(params, jax.random.key(7), 200_000)
    logits = np.asarray(model.decode(params, z).outputs, np.float64)
    errors = np.sqrt(estimate.log_likelihood_variance)
    assert errors.max() < 0.1
    for image, found, error in zip(np.asarray(x), estimate.log_likelihood, errors, strict=True):
        log_probs = np.sum(image * logits - np.logaddexp(0, logits), axis=(1, 2, 3))
        assert abs(np.logaddexp.reduce(log_probs) - np.log(200_000) - found) < 4 * error


@pytest.mark.manual
def test_devices_and_batches_change_nothing() -> None:
    truth = LinearGaussian.draw((4, 4, 1), 2)
    params, x = truth.variables(), truth.sample(16).astype(np.float32)
    schedule = schedule_for(truth, params, "posterior", 10, x[:4])
    function = make_annealed_estimate(truth.vae(), 8, 3, "posterior")
    ids = np.arange(16, dtype=np.int32)
    whole = function(params, Batch(x), ids, KEY, schedule).log_likelihood
    parts = [
        function(params, Batch(x[i : i + 4]), ids[i : i + 4], KEY, schedule).log_likelihood for i in range(0, 16, 4)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5)
    mesh = Mesh(np.asarray(jax.devices()), ("batch",))
    everywhere = jax.device_put((params, schedule), replicated(mesh))
    divided = jax.device_put((x, ids), split_batch(mesh))
    spread = function(everywhere[0], *divided, KEY, everywhere[1]).log_likelihood
    assert spread.sharding.num_devices == 8
    np.testing.assert_allclose(spread, whole, rtol=1e-5)


def test_temperatures_rise_from_zero_to_one() -> None:
    temperatures = np.asarray(sigmoid_temperatures(50))
    assert temperatures[0] == 0 and temperatures[-1] == 1 and len(temperatures) == 51
    steps = np.diff(temperatures)
    assert np.all(steps > 0) and steps[0] < steps[25] / 5 and steps[-1] < steps[25] / 5


@pytest.mark.long
def test_impossible_starts_are_refused() -> None:
    model = build_model(ModelConfig(network="mlp(hidden=(4,))", posterior="iaf(hidden=(4,))", latents=2), (3, 3, 1))
    params, x = init_variables(model, jax.random.key(0), (3, 3, 1)), jnp.zeros((1, 3, 3, 1))
    schedule = Schedule(jnp.asarray([0.0, 1.0]), jnp.asarray([0.1]))
    with pytest.raises(ValueError, match="density_anywhere"):
        make_annealed_estimate(model, 2, 2, "posterior")(params, Batch(x), jnp.arange(1), KEY, schedule)
    with pytest.raises(ValueError, match="choose from prior, posterior"):
        make_annealed_estimate(model, 2, 2, "nowhere")(params, Batch(x), jnp.arange(1), KEY, schedule)
