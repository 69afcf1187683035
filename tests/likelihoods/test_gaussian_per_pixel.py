"""Gaussian with a variance for each pixel: against scipy and numpyro, and its bound."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions
import pytest
import scipy.stats
from jax.test_util import check_grads

from vae_jax.likelihoods import GaussianPerPixel


def outputs_of(mean: np.ndarray, stddev: np.ndarray, min_stddev: float) -> jax.Array:
    """What the decoder must put out for these; the inverse of the soft bound."""
    minimum = 2.0 * np.log(min_stddev)
    above = 2.0 * np.log(stddev) - minimum
    return jnp.asarray(np.concatenate([mean, minimum + np.log(np.expm1(above))], axis=-1))


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (2, 3, 4, 3)
    return rng.normal(0.5, 0.3, shape), rng.uniform(0.02, 2.0, shape), rng.uniform(0.0, 1.0, shape)


@pytest.mark.long
def test_log_prob_agrees_with_scipy_and_numpyro() -> None:
    mean, stddev, x = example()
    expected = scipy.stats.norm(mean, stddev).logpdf(x).sum(axis=(1, 2, 3))
    with jax.enable_x64(True):
        log_prob = GaussianPerPixel(1e-2).log_prob(outputs_of(mean, stddev, 1e-2), jnp.asarray(x))
        np.testing.assert_allclose(log_prob, expected, rtol=1e-12)
        theirs = numpyro.distributions.Normal(mean, stddev).to_event(3).log_prob(x)
        np.testing.assert_allclose(log_prob, theirs, rtol=1e-12)
    outputs = outputs_of(mean, stddev, 1e-2)
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(GaussianPerPixel(1e-2).log_prob(outputs, jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.long
def test_gradient_agrees_with_finite_differences() -> None:
    mean, stddev, x = example()
    with jax.enable_x64(True):
        outputs = outputs_of(mean, stddev, 1e-3)
        check_grads(
            lambda o: GaussianPerPixel().log_prob(jnp.asarray(o), jnp.asarray(x)), (outputs,), order=1, rtol=1e-5
        )


def test_standard_deviation_stays_above_its_bound() -> None:
    outputs = jnp.stack([jnp.zeros(5), jnp.array([-1e30, -1e4, -20.0, 0.0, 10.0])], axis=-1).reshape(5, 1, 1, 2)
    _, logvar = GaussianPerPixel().parameters(outputs)
    stddev = np.exp(0.5 * np.asarray(logvar).ravel())
    assert (stddev > 0.999e-3).all()
    np.testing.assert_allclose(stddev[[0, 3, 4]], [1e-3, 1.0, np.exp(5.0)], rtol=1e-5)


@pytest.mark.long
def test_extreme_outputs_stay_finite() -> None:
    mean, logvar = jnp.meshgrid(jnp.array([-1e4, 0.0, 1e4]), jnp.array([-1e30, -1e4, 0.0, 1e4, 1e30]))
    outputs = jnp.stack([mean, logvar], axis=-1).reshape(-1, 1, 1, 2)
    x = jnp.ones((len(outputs), 1, 1, 1))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(GaussianPerPixel().log_prob)))(outputs, x)
    assert np.isfinite(values).all() and np.isfinite(gradients).all()


def test_samples_follow_the_density() -> None:
    """Kolmogorov-Smirnov at 1e-4: with fresh seeds, one run in 10000 would fail."""
    mean, stddev = np.full((100, 200, 1), 0.3), np.full((100, 200, 1), 0.2)
    x = jax.jit(GaussianPerPixel().sample)(outputs_of(mean, stddev, 1e-3), jax.random.key(0))
    assert scipy.stats.kstest(np.ravel(x), scipy.stats.norm(0.3, 0.2).cdf).pvalue > 1e-4


@pytest.mark.long
def test_interface() -> None:
    likelihood = GaussianPerPixel()
    assert likelihood.outputs_per_pixel(3) == 6
    rng = np.random.default_rng(0)
    outputs, x = jnp.asarray(rng.normal(size=(5, 2, 3, 4, 6))), jnp.asarray(rng.uniform(size=(2, 3, 4, 3)))
    assert jax.jit(likelihood.log_prob)(outputs, x).shape == (5, 2)
    np.testing.assert_array_equal(likelihood.mean(outputs), outputs[..., :3])
    assert jax.eval_shape(likelihood.sample, outputs, jax.random.key(2)).shape == (5, 2, 3, 4, 3)
