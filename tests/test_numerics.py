"""Streaming log-mean-exp and the intervals, against scipy, NumPy in float64 and repetition."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from vae_jax.numerics import LogMeanExp, bits_per_dim, estimate, flat_event, sum_event


def streamed(log_weights: np.ndarray, lengths: list[int]) -> LogMeanExp:
    sums, start = LogMeanExp.empty(log_weights.shape[1]), 0
    for length in lengths:
        sums = sums.add(jnp.asarray(log_weights[start : start + length], jnp.float32))
        start += length
    assert start == len(log_weights)
    return sums


def log_mean_exp(log_weights: np.ndarray) -> np.ndarray:
    return scipy.special.logsumexp(log_weights.astype(np.float64), axis=0) - np.log(len(log_weights))


@pytest.mark.parametrize("lengths", [[24], [1] * 24, [5, 7, 12]])
@pytest.mark.parametrize("offset", [0.0, -1e4, 1e4])
def test_mean_of_weights_is_scipys_whatever_the_chunks(lengths: list[int], offset: float) -> None:
    log_weights = (np.random.default_rng(0).normal(size=(24, 5), scale=4) + offset).astype(np.float32)
    value = streamed(log_weights, lengths).value
    np.testing.assert_allclose(value, log_mean_exp(log_weights), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("lengths", [[6], [1] * 6, [2, 4]])
def test_weights_of_zero_count_as_zero(lengths: list[int]) -> None:
    log_weights = np.full((6, 3), -np.inf, np.float32)
    log_weights[3, 1] = 2.0
    log_weights[:, 2] = [-np.inf, 0, -np.inf, 1, 2, -np.inf]
    value = np.asarray(streamed(log_weights, lengths).value)
    assert value[0] == -np.inf
    np.testing.assert_allclose(value[1:], log_mean_exp(log_weights[:, 1:]), rtol=1e-6)


def test_padding_does_not_count() -> None:
    log_weights = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    padded = jnp.concatenate([jnp.asarray(log_weights), jnp.full((3, 4), 50.0)])
    sums = LogMeanExp.empty(4).add(padded, jnp.array([1.0] * 5 + [0.0] * 3))
    assert float(sums.count) == 5
    np.testing.assert_allclose(sums.value, log_mean_exp(log_weights), rtol=1e-5)


def test_effective_sample_size_by_its_formula() -> None:
    log_weights = np.random.default_rng(2).normal(size=(30, 4), scale=2).astype(np.float32)
    weights = np.exp(log_weights.astype(np.float64))
    expected = weights.sum(0) ** 2 / (weights**2).sum(0)
    np.testing.assert_allclose(streamed(log_weights, [7, 7, 16]).effective_sample_size, expected, rtol=1e-5)
    np.testing.assert_allclose(streamed(np.zeros((30, 1)), [30]).effective_sample_size, 30.0, rtol=1e-6)


def test_variance_is_what_repetitions_show() -> None:
    # 4,000 estimates from 200 log-normal weights each: their variance has a relative error of 2%.
    log_weights = np.random.default_rng(3).normal(size=(200, 4000), scale=0.7)
    sums = streamed(log_weights.astype(np.float32), [200])
    np.testing.assert_allclose(np.mean(sums.variance), np.var(log_mean_exp(log_weights)), rtol=0.08)


def test_estimate_and_its_two_errors_by_hand() -> None:
    result = estimate(np.array([1.0, 2.0, 6.0]), np.array([0.25, 0.5, 0.25]))
    assert result.mean == 3.0
    assert result.standard_error_images == pytest.approx(np.sqrt((4 + 1 + 9) / 2 / 3))
    assert result.standard_error_estimator == pytest.approx(1 / 3)
    assert result.num_images == 3


def test_estimate_tells_no_error_that_is_not_known() -> None:
    one = estimate(np.array([2.0]), np.array([np.inf]))
    assert (one.mean, one.standard_error_images, one.standard_error_estimator) == (2.0, None, None)
    assert estimate(np.array([2.0, 3.0])).standard_error_estimator is None


def test_bits_per_dim_of_a_fair_coin_per_pixel_is_one() -> None:
    assert bits_per_dim(784 * np.log(0.5), 784) == pytest.approx(1.0)


def test_sum_of_half_precision_is_taken_in_float32() -> None:
    # In bfloat16 the sum would stop growing at 256.
    total = sum_event(flat_event(jnp.ones((2, 64, 64, 1), jnp.bfloat16)))
    assert total.dtype == jnp.float32
    np.testing.assert_array_equal(total, 4096.0)
