"""Images in files behave like an array of them, and what is done to their pixels gives the same bits."""

import pickle

import jax
import numpy as np
import pytest

from vae_jax.config import BINARIZATIONS
from vae_jax.data.binarization import binarized_once
from vae_jax.data.dataset import SPLITS, Dataset
from vae_jax.data.streamed import StreamedImages, changed, take

PIXELS = np.random.default_rng(0).integers(0, 256, (200, 4, 3, 2), np.uint8)


class Recorder:
    """A reader of `PIXELS` that notes what it was asked for."""

    image_shape = (4, 3, 2)

    def __init__(self) -> None:
        self.asked: list[int] = []

    def read(self, indices: np.ndarray) -> np.ndarray:
        self.asked += indices.tolist()
        return PIXELS[indices]


def binarized(pixels: np.ndarray, numbers: np.ndarray | None) -> np.ndarray:
    return binarized_once(pixels, 255, seed=1, part=0, numbers=numbers)


@pytest.fixture
def reader() -> Recorder:
    return Recorder()


@pytest.fixture
def images(reader: Recorder) -> StreamedImages:
    return StreamedImages(reader, np.arange(200))


@pytest.mark.parametrize(
    "key",
    [3, -1, np.int32(7), slice(5, 9), slice(None, None, -50), slice(0, 0), np.array([8, 2, 8]), np.arange(200) > 195],
    ids=str,
)
def test_indexing_equals_that_of_the_array(images: StreamedImages, reader: Recorder, key) -> None:
    np.testing.assert_array_equal(images[key], PIXELS[key], strict=True)
    assert len(reader.asked) == PIXELS[key].size // 24


def test_numpy_and_jax_see_an_array(images: StreamedImages, reader: Recorder) -> None:
    assert (images.shape, images.dtype, len(images), images.nbytes) == (PIXELS.shape, np.uint8, 200, PIXELS.nbytes)
    assert reader.asked == []
    with pytest.raises(IndexError):
        images[200]
    np.testing.assert_array_equal(np.asarray(images), PIXELS)
    assert np.asarray(images, np.float32).dtype == np.float32
    np.testing.assert_array_equal(jax.device_put(images[:]), PIXELS)


def test_taking_rows_decodes_nothing(images: StreamedImages, reader: Recorder) -> None:
    part = take(take(images, np.arange(100, 200)), slice(10, None, 2))
    assert isinstance(part, StreamedImages) and reader.asked == []
    np.testing.assert_array_equal(part[np.array([0, 3])], PIXELS[[110, 116]])


def test_an_image_keeps_its_number(images: StreamedImages) -> None:
    rows = np.random.default_rng(1).permutation(200)
    expected = changed(take(PIXELS, rows), binarized)
    found = pickle.loads(pickle.dumps(changed(take(images, rows), binarized)))
    some = np.array([150, 3, 4, 5, 3, 199])
    np.testing.assert_array_equal(found[some], expected[some], strict=True)
    np.testing.assert_array_equal(take(take(found, some), slice(2, 5))[:], expected[some][2:5], strict=True)
    np.testing.assert_array_equal(found.decode(num_threads=3), expected)


@pytest.mark.parametrize("binarization", BINARIZATIONS)
def test_splits_are_the_same_bits(images: StreamedImages, reader: Recorder, binarization: str) -> None:
    labels = np.arange(150, dtype=np.int32) % 7
    settings = {"binarization": binarization, "validation_fraction": 0.3, "seed": 5}

    def data(all_images) -> Dataset:
        parts = take(all_images, np.arange(150)), take(all_images, np.arange(150, 200))
        return Dataset("some", *parts, labels, None, 255, "0" * 16, **settings)

    resident, streamed = data(PIXELS), data(images)
    pairs = [(resident.training, streamed.training), (resident.part("test"), streamed.part("test"))]
    pairs += [(resident.for_evaluation(split), streamed.for_evaluation(split)) for split in SPLITS]
    assert reader.asked == []
    for one, other in pairs:
        assert isinstance(other.images, StreamedImages) and one.max_value == other.max_value
        np.testing.assert_array_equal(other.images[:], one.images, strict=True)
        np.testing.assert_array_equal(other.labels, one.labels)
        pickle.dumps(other.images.change)
