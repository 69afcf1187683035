"""Distances between sets of images against scipy and brute force."""

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import scipy.spatial

from vae_jax.evaluation import frechet_distance, nearest_images, random_convolutions


def test_frechet_distance_is_that_of_scipys_matrix_root() -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    other = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) + 1.0
    covariances = np.cov(one.T), np.cov(other.T)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = np.sum((one.mean(0) - other.mean(0)) ** 2) + np.trace(sum(covariances) - 2 * root)
    np.testing.assert_allclose(frechet_distance(one, other), expected, rtol=1e-6)


def test_frechet_distance_to_itself_is_zero_even_with_more_features_than_images() -> None:
    features = np.random.default_rng(0).normal(size=(5, 20))
    assert frechet_distance(features, features) < 1e-6
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance(features[:1], features)


def test_random_convolutions_are_those_of_scipy() -> None:
    image = np.random.default_rng(3).uniform(size=(1, 6, 6, 1)).astype(np.float32)
    # The same draws as in the function, in the same order.
    rng = np.random.default_rng(0)
    x = image[0]
    for channels in (32, 64):
        fan_in = 9 * x.shape[-1]
        kernel = rng.normal(0.0, np.sqrt(2 / fan_in), (3, 3, x.shape[-1], channels))
        convolved = [
            sum(scipy.signal.correlate2d(x[..., i], kernel[..., i, o], mode="same") for i in range(x.shape[-1]))
            for o in range(channels)
        ]
        x = np.maximum(np.stack(convolved, axis=-1), 0.0)
        if x.shape[0] >= 4:
            x = x[: x.shape[0] // 2 * 2, : x.shape[1] // 2 * 2]
            x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).mean((1, 3))
    cells = [x[:2, :2], x[:2, 2:], x[2:, :2], x[2:, 2:]]
    expected = np.concatenate([cell.mean((0, 1)) for cell in cells])
    np.testing.assert_allclose(random_convolutions((6, 6, 1))(image)[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("shape", "size"), [((8, 8, 1), 256), ((28, 20, 3), 256), ((1, 9, 1), 128), ((1, 1, 1), 64)])
def test_features_of_any_image_tell_images_apart(shape: tuple[int, int, int], size: int) -> None:
    images = np.random.default_rng(0).uniform(size=(7, *shape)).astype(np.float32)
    features = random_convolutions(shape)(images)
    assert features.shape == (7, size)
    np.testing.assert_array_equal(features, random_convolutions(shape)(images))
    assert np.unique(features, axis=0).shape[0] == 7


def test_nearest_is_brute_force() -> None:
    rng = np.random.default_rng(0)
    queries, images = (rng.uniform(size=(n, 3, 4, 2)).astype(np.float32) for n in (20, 50))
    distances = scipy.spatial.distance.cdist(queries.reshape(20, -1), images.reshape(50, -1))
    distance, index = nearest_images(queries, images)
    np.testing.assert_array_equal(index, distances.argmin(1))
    np.testing.assert_allclose(distance, distances.min(1), rtol=1e-4)
    np.testing.assert_allclose(nearest_images(images[:5], images)[0], 0.0, atol=1e-3)
