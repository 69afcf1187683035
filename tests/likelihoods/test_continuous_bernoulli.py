"""Continuous Bernoulli: against numerical integration, near logit 0 and far from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from jax.test_util import check_grads

from vae_jax.likelihoods import ContinuousBernoulli, continuous_bernoulli_log_prob
from vae_jax.likelihoods.continuous_bernoulli import (
    continuous_bernoulli_log_density,
    continuous_bernoulli_mean,
    continuous_bernoulli_quantile,
)

# Both branches of every piecewise formula, where they meet (1, and 1e-3 for the quantile), and 0 itself.
LOGITS = [0.0, 1e-30, 1e-8, 1e-4, 9.99e-4, 1.001e-3, 0.01, 0.1, 0.5, 0.999999, 1.000001, 1.5, 4.0, 10.0, 30.0]
LOGITS = sorted({sign * logit for logit in LOGITS for sign in (-1.0, 1.0)})


def integral(function, logit: float) -> float:
    """`int_0^1 function(x) exp(l (x - 1/2)) dx` in float64."""
    return scipy.integrate.quad(
        lambda x: function(x) * np.exp(logit * (x - 0.5)), 0, 1, epsabs=0, epsrel=1e-13, limit=200
    )[0]


def log_normalizer(logit: float) -> float:
    return float(np.log(integral(lambda x: 1.0, logit)) + 0.5 * logit)


def mean(logit: float) -> float:
    return integral(lambda x: x, logit) / integral(lambda x: 1.0, logit)


def cdf(x: np.ndarray, logit: float) -> np.ndarray:
    return x if logit == 0.0 else np.expm1(logit * x) / np.expm1(logit)


@pytest.mark.long
def test_density_and_its_gradient_agree_with_numerical_integration_in_float32() -> None:
    normalizer, expected_mean = (np.array([function(logit) for logit in LOGITS]) for function in (log_normalizer, mean))
    logits, x = jnp.asarray(LOGITS), jnp.array([[0.0], [0.3], [0.5], [1.0]])
    values = jax.jit(continuous_bernoulli_log_density)(logits, x)
    np.testing.assert_allclose(values, np.asarray(x) * np.array(LOGITS) - normalizer, rtol=1e-6, atol=5e-7)
    gradients = jax.vmap(jax.grad(lambda logits, x: continuous_bernoulli_log_density(logits, x).sum()), (None, 0))(
        logits, x
    )
    np.testing.assert_allclose(gradients, np.asarray(x) - expected_mean, atol=5e-7)
    np.testing.assert_allclose(jax.jit(continuous_bernoulli_mean)(logits), expected_mean, atol=5e-7)


def test_in_float64_the_branches_are_exact_where_they_meet() -> None:
    with jax.enable_x64(True):
        logits = jnp.asarray(LOGITS)
        normalizers = [log_normalizer(logit) for logit in LOGITS]
        at_zero = jax.jit(continuous_bernoulli_log_density)(logits, jnp.zeros_like(logits))
        np.testing.assert_allclose(-at_zero, normalizers, atol=1e-12)
        np.testing.assert_allclose(
            jax.jit(continuous_bernoulli_mean)(logits), [mean(logit) for logit in LOGITS], atol=1e-11
        )


@pytest.mark.long
def test_gradients_agree_with_finite_differences() -> None:
    with jax.enable_x64(True):
        # None where two branches meet, within the step of the differences.
        logits = jnp.array([-30.0, -1.1, -0.9, -1e-2, 0.0, 2e-3, 0.5, 2.0, 8.0])
        x = jnp.linspace(0.0, 1.0, 9)
        # Jitted functions also take the NumPy arrays that `check_grads` calls them with.
        check_grads(
            jax.jit(lambda logits: continuous_bernoulli_log_density(logits, x)), (logits,), order=2, modes=["rev"]
        )
        check_grads(jax.jit(lambda logits: continuous_bernoulli_quantile(logits, x)), (logits,), order=1)


def test_extreme_logits_stay_finite_and_accurate() -> None:
    extreme = jnp.array([-1e30, -1e4, -200.0, 200.0, 1e4, 1e30])
    logits, x = (array.reshape(-1, 1, 1, 1) for array in jnp.meshgrid(extreme, jnp.array([0.0, 0.5, 1.0])))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(continuous_bernoulli_log_prob)))(logits, x)
    assert np.isfinite(values).all() and np.isfinite(gradients).all()
    # At the edge where the density is highest it is |l|.
    at_edge = jax.jit(continuous_bernoulli_log_density)(extreme, (extreme > 0).astype(jnp.float32))
    np.testing.assert_allclose(at_edge, np.log(np.abs(extreme)), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(continuous_bernoulli_mean)(extreme), extreme > 0, atol=6e-3)
    samples = jax.jit(ContinuousBernoulli().sample)(jnp.broadcast_to(extreme, (50, 20, 6)), jax.random.key(0))
    assert samples.min() >= 0.0 and samples.max() <= 1.0


def test_quantile_inverts_the_distribution_function() -> None:
    u = jnp.linspace(0.0, 1.0, 101)
    x = jax.jit(continuous_bernoulli_quantile)(*jnp.broadcast_arrays(jnp.asarray(LOGITS)[:, None], u))
    for row, logit in zip(np.asarray(x, np.float64), LOGITS, strict=True):
        np.testing.assert_allclose(cdf(row, logit), u, atol=2e-6)


@pytest.mark.parametrize(("seed", "logit"), list(enumerate([-20.0, -1.0, -1e-4, 0.0, 2e-3, 1.0, 20.0])))
def test_samples_follow_the_density(seed: int, logit: float) -> None:
    """Kolmogorov-Smirnov at 1e-4 for each of 7: with fresh seeds, one run in 1400 would fail."""
    x = jax.jit(ContinuousBernoulli().sample)(jnp.full((100, 200, 1), logit), jax.random.key(seed))
    assert x.min() >= 0.0 and x.max() <= 1.0
    assert scipy.stats.kstest(np.ravel(x), lambda x: cdf(x, logit)).pvalue > 1e-4
