"""The order of the data: a function of the seed and the step alone."""

import math

import jax
import numpy as np
import pytest
from scipy import stats

from vae_jax.data.order import batch_indices, epoch_order, shuffled

BATCH = 5
# Of each test of a distribution: the chance that it fails although the order is uniform. Seeds are fixed.
CHANCE = 1e-6


def batches(seed: int, first_step: int, num_steps: int, num_images: int) -> np.ndarray:
    steps = np.arange(first_step, first_step + num_steps, dtype=np.uint32)
    return batch_indices(np.array([seed], np.uint32), steps, BATCH, num_images)[:, 0]


def orders(num_epochs: int, num_images: int) -> np.ndarray:
    """The orders of many epochs, `[epoch, position]`."""
    positions = np.arange(num_images, dtype=np.uint32)[None]
    epochs = np.arange(num_epochs, dtype=np.uint32)[:, None]
    return shuffled(positions, num_images, np.array([[17]], np.uint32), epochs).astype(np.int64)


def test_epochs_have_each_image_at_most_once_and_leave_out_others() -> None:
    indices = batches(0, 0, 40, 23).reshape(10, 20)
    assert all(len(set(epoch)) == 20 for epoch in indices)
    assert len({tuple(epoch) for epoch in indices}) == 10
    assert len({frozenset(set(range(23)) - set(epoch)) for epoch in indices}) > 5
    assert set(indices.ravel()) == set(range(23))


def test_batch_is_a_function_of_the_seed_and_the_step_alone() -> None:
    whole = batches(1, 0, 11, 23)
    np.testing.assert_array_equal(batches(1, 3, 6, 23), whole[3:9])
    both = batch_indices(np.array([1, 2**32 - 1], np.uint32), np.arange(11, dtype=np.uint32), BATCH, 23)
    np.testing.assert_array_equal(both[:, 0], whole)
    np.testing.assert_array_equal(both[:, 1], batches(2**32 - 1, 0, 11, 23))


def test_compiled_program_has_the_order_of_numpy() -> None:
    seeds, steps = np.array([0, 3_000_000_000], np.uint32), np.arange(2**31 - 7, 2**31 + 300, dtype=np.uint32)
    compiled = jax.jit(lambda steps: batch_indices(seeds, steps, 128, 60_001))(steps)
    np.testing.assert_array_equal(compiled, batch_indices(seeds, steps, 128, 60_001))


@pytest.mark.parametrize("num_images", [1, 2, 3, 4, 5, 7, 128, 1999, 60_000])
def test_order_is_a_permutation(num_images: int) -> None:
    for seed, epoch in ((0, 0), (2**32 - 1, 5)):
        np.testing.assert_array_equal(np.sort(epoch_order(seed, epoch, num_images)), np.arange(num_images))


@pytest.mark.parametrize("num_images", [2, 3, 4, 5, 6])
def test_every_permutation_is_equally_likely(num_images: int) -> None:
    found = orders(40_000, num_images) @ num_images ** np.arange(num_images)
    _, counts = np.unique(found, return_counts=True)
    assert len(counts) == math.factorial(num_images)
    assert stats.chisquare(counts).pvalue > CHANCE


@pytest.mark.parametrize("num_images", [7, 64, 1000])
def test_order_has_the_statistics_of_a_uniform_permutation(num_images: int) -> None:
    found, num_epochs = orders(2_000, num_images), 2_000
    places = np.arange(num_images)
    # Image i at place j: each pair once in N epochs.
    for place in (0, num_images // 2, num_images - 1):
        counts = np.bincount(found[:, place], minlength=num_images)
        assert stats.chisquare(counts).pvalue > CHANCE
    # The difference of neighbours, modulo N, is uniform on 1 .. N - 1.
    differences = np.diff(found, axis=1) % num_images
    assert stats.chisquare(np.bincount(differences.ravel(), minlength=num_images)[1:]).pvalue > CHANCE
    # Fixed points have mean 1 and variance 1; ascents mean (N - 1) / 2 and variance (N + 1) / 12.
    # Sum of place * image: mean N ((N - 1) / 2)^2, variance (N (N^2 - 1) / 12)^2 / (N - 1).
    moment_variance = (num_images * (num_images**2 - 1) / 12) ** 2 / (num_images - 1)
    for values, mean, variance in (
        ((found == places).sum(1), 1.0, 1.0),
        ((np.diff(found, axis=1) > 0).sum(1), (num_images - 1) / 2, (num_images + 1) / 12),
        ((found * places).sum(1), num_images * ((num_images - 1) / 2) ** 2, moment_variance),
    ):
        z = (values.mean() - mean) / math.sqrt(variance / num_epochs)
        assert 2 * stats.norm.sf(abs(z)) > CHANCE
        assert abs(values.var() / variance - 1) < 0.25


def test_orders_of_different_epochs_and_seeds_are_independent() -> None:
    first = epoch_order(0, 0, 2000)
    for seed, epoch in ((0, 1), (1, 0), (2**31, 0)):
        other = epoch_order(seed, epoch, 2000)
        assert stats.spearmanr(first, other).pvalue > CHANCE
        assert (first == other).sum() < 10


def test_order_stays_as_it_is() -> None:
    # A run that is continued with another version has to see the same batches.
    np.testing.assert_array_equal(epoch_order(0, 0, 8), [4, 5, 6, 2, 7, 3, 1, 0])
