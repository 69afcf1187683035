"""Binarized pixels are Bernoulli with the probability that their grey value says, against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.data.binarization import binarized_once, dynamic_binarization, scaled, thresholded


def fixed(images: np.ndarray, max_value: int) -> np.ndarray:
    return binarized_once(images, max_value, 0, 0)


def dynamic(images: np.ndarray, max_value: int) -> np.ndarray:
    return np.asarray(dynamic_binarization(jnp.asarray(images), max_value, jax.random.key(0)))


@pytest.mark.parametrize("max_value", [16, 255])
@pytest.mark.parametrize("binarized", [fixed, dynamic])
def test_draws_have_the_probability_of_the_pixel(binarized, max_value: int) -> None:
    copies, pixels = 4000, max_value + 1
    images = np.tile(np.arange(pixels, dtype=np.uint8), (copies, 1))[:, :, np.newaxis, np.newaxis]
    binary = binarized(images, max_value)
    assert binary.shape == images.shape and set(np.unique(binary)) == {0, 1}
    ones = binary.reshape(copies, pixels).sum(axis=0).astype(int)
    assert ones[0] == 0 and ones[-1] == copies
    p_values = [scipy.stats.binomtest(int(count), copies, i / max_value).pvalue for i, count in enumerate(ones)]
    # The smallest of so many p-values is this small once in a thousand keys; this key is always the same.
    assert min(p_values) > 0.001 / pixels


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


def test_fixed_draws_of_the_first_images_outlive_a_cut() -> None:
    images = np.tile(np.arange(256, dtype=np.uint8), (5000, 1))
    np.testing.assert_array_equal(binarized_once(images, 255, 3, 1)[:40], binarized_once(images[:40], 255, 3, 1))
    assert np.any(binarized_once(images[:40], 255, 3, 1) != binarized_once(images[:40], 255, 3, 2))


def test_threshold_and_scale() -> None:
    images = np.array([0, 127, 128, 255], np.uint8).reshape(1, 2, 2, 1)
    assert thresholded(images, 255).ravel().tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(scaled(jnp.asarray(images), 255).ravel(), np.array([0, 127, 128, 255]) / 255, rtol=1e-6)
