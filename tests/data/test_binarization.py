"""Binarized pixels are Bernoulli with the probability that their grey value says, against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.data.binarization import binarized_once, dynamic_binarization, scaled, thresholded


def every_grey_value(max_value: int, copies: int) -> np.ndarray:
    """Images of `max_value + 1` pixels, one of each grey value."""
    return np.tile(np.arange(max_value + 1, dtype=np.uint8), (copies, 1))[:, :, np.newaxis, np.newaxis]


def frequencies_are_binomial(binary: np.ndarray, max_value: int) -> None:
    assert set(np.unique(binary)) == {0, 1}
    ones, copies = binary.reshape(len(binary), -1).sum(axis=0).astype(int), len(binary)
    assert ones[0] == 0
    assert ones[-1] == copies
    expected = np.arange(max_value + 1) / max_value
    p_values = [scipy.stats.binomtest(int(n), copies, p).pvalue for n, p in zip(ones, expected, strict=True)]
    # The smallest of so many p-values is this small once in a thousand keys; this key is always the same.
    assert min(p_values) > 0.001 / len(p_values)


@pytest.mark.long
@pytest.mark.parametrize("max_value", [16, 255])
def test_dynamic_draws_have_the_probability_of_the_pixel(max_value: int) -> None:
    images = every_grey_value(max_value, 4000)
    binary = dynamic_binarization(jnp.asarray(images), max_value, jax.random.key(0))
    assert binary.shape == images.shape
    assert binary.dtype == jnp.float32
    frequencies_are_binomial(np.asarray(binary), max_value)


def test_dynamic_draws_of_one_image_are_independent() -> None:
    grey = jnp.full((4000, 3, 3, 1), 128, jnp.uint8)
    draws = np.asarray(dynamic_binarization(grey, 255, jax.random.key(1))).reshape(4000, 9)
    correlations = np.corrcoef(draws.T)[np.triu_indices(9, 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(4000)


def test_dynamic_draws_follow_from_their_key() -> None:
    grey = jnp.full((10, 8, 8, 1), 128, jnp.uint8)
    one, again, other = (np.asarray(dynamic_binarization(grey, 255, jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert 0.4 < np.mean(one != other) < 0.6


@pytest.mark.parametrize("max_value", [16, 255])
def test_fixed_draws_have_the_probability_of_the_pixel(max_value: int) -> None:
    frequencies_are_binomial(binarized_once(every_grey_value(max_value, 4000), max_value, 0, 0), max_value)


def test_fixed_draws_of_the_first_images_outlive_a_cut() -> None:
    images = every_grey_value(255, 5000)
    np.testing.assert_array_equal(binarized_once(images, 255, 3, 1)[:40], binarized_once(images[:40], 255, 3, 1))
    assert np.any(binarized_once(images[:40], 255, 3, 1) != binarized_once(images[:40], 255, 3, 2))


def test_threshold_and_scale() -> None:
    images = np.array([0, 127, 128, 255], np.uint8).reshape(1, 2, 2, 1)
    assert thresholded(images, 255).ravel().tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(scaled(jnp.asarray(images), 255).ravel(), np.array([0, 127, 128, 255]) / 255, rtol=1e-6)
