"""The order of the data: a function of the seed and the step alone."""

import numpy as np

from vae_jax.data.batches import batch_indices

BATCH = 5


def test_epoch_has_each_image_at_most_once_and_as_many_batches_as_fit() -> None:
    first = batch_indices(seed=0, first_step=0, num_steps=4, batch_size=BATCH, num_images=23)
    assert first.shape == (4, 5) and first.dtype == np.int32
    assert len(set(first.ravel())) == 20
    assert set(first.ravel()) <= set(range(23))


def test_epochs_differ_and_leave_out_other_images() -> None:
    indices = batch_indices(seed=0, first_step=0, num_steps=40, batch_size=BATCH, num_images=23).reshape(10, 20)
    left_out = {frozenset(set(range(23)) - set(epoch)) for epoch in indices}
    assert len({tuple(epoch) for epoch in indices}) == 10
    assert len(left_out) > 5
    assert set(indices.ravel()) == set(range(23))


def test_epochs_of_all_images_have_all_images() -> None:
    indices = batch_indices(seed=0, first_step=0, num_steps=8, batch_size=5, num_images=20).reshape(2, 20)
    for epoch in indices:
        assert sorted(epoch) == list(range(20))


def test_batch_is_a_function_of_the_seed_and_the_step_alone() -> None:
    whole = batch_indices(seed=1, first_step=0, num_steps=11, batch_size=BATCH, num_images=23)
    for step in (10, 0, 7):
        np.testing.assert_array_equal(batch_indices(1, step, 1, BATCH, 23)[0], whole[step])
    np.testing.assert_array_equal(batch_indices(1, 3, 6, BATCH, 23), whole[3:9])
    assert np.any(batch_indices(2, 0, 11, BATCH, 23) != whole)


def test_positions_are_uniform() -> None:
    # 2,000 epochs of 5 images: each should come first 400 times, with a standard deviation of 18.
    first = batch_indices(seed=0, first_step=0, num_steps=2000, batch_size=5, num_images=5)[:, 0]
    assert np.all(np.abs(np.bincount(first) - 400) < 5 * 18)
