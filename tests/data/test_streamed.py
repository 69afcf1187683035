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


@pytest.fixture
def images() -> StreamedImages:
    return StreamedImages(Recorder(), np.arange(200))


def asked(images: StreamedImages) -> list[int]:
    assert isinstance(images.reader, Recorder)
    return images.reader.asked


def test_shape_and_dtype_of_an_array(images: StreamedImages) -> None:
    assert (images.shape, images.dtype, len(images)) == (PIXELS.shape, PIXELS.dtype, 200)
    assert images.nbytes == PIXELS.nbytes
    assert asked(images) == []


@pytest.mark.parametrize(
    "key",
    [3, -1, np.int32(7), slice(5, 9), slice(None, None, -50), slice(0, 0), np.array([8, 2, 8]), np.arange(200) > 195],
    ids=str,
)
def test_indexing_equals_that_of_the_array(images: StreamedImages, key) -> None:
    expected = PIXELS[key]
    np.testing.assert_array_equal(images[key], expected, strict=True)
    assert len(asked(images)) == (1 if expected.ndim == 3 else len(expected))


def test_an_absent_image_is_an_index_error(images: StreamedImages) -> None:
    with pytest.raises(IndexError):
        images[200]


def test_numpy_and_jax_convert_it(images: StreamedImages) -> None:
    np.testing.assert_array_equal(np.asarray(images), PIXELS)
    assert np.asarray(images, np.float32).dtype == np.float32
    np.testing.assert_array_equal(jax.device_put(images[:]), PIXELS)


def test_taking_rows_decodes_nothing(images: StreamedImages) -> None:
    part = take(take(images, np.arange(100, 200)), slice(10, None, 2))
    assert isinstance(part, StreamedImages) and asked(images) == []
    np.testing.assert_array_equal(part[np.array([0, 3])], PIXELS[[110, 116]])
    np.testing.assert_array_equal(take(PIXELS, slice(10, 20)), PIXELS[10:20])


def test_an_image_keeps_its_number(images: StreamedImages) -> None:
    def binarized(pixels: np.ndarray, numbers: np.ndarray | None) -> np.ndarray:
        return binarized_once(pixels, 255, seed=1, part=0, numbers=numbers)

    rows = np.random.default_rng(1).permutation(200)
    expected = changed(take(PIXELS, rows), binarized)
    found = changed(take(images, rows), binarized)
    some = np.array([150, 3, 4, 5, 3, 199])
    np.testing.assert_array_equal(found[some], expected[some], strict=True)
    np.testing.assert_array_equal(take(take(found, some), slice(2, 5))[:], expected[some][2:5], strict=True)
    np.testing.assert_array_equal(found.decode(num_threads=1), expected)
    np.testing.assert_array_equal(found.decode(num_threads=3), expected)


@pytest.mark.parametrize("binarization", BINARIZATIONS)
def test_splits_are_the_same_bits(images: StreamedImages, binarization: str) -> None:
    labels = np.arange(150, dtype=np.int32) % 7
    train, test = np.arange(150), np.arange(150, 200)

    def data(all_images) -> Dataset:
        parts = take(all_images, train), take(all_images, test)
        return Dataset(
            "some", *parts, labels, None, 255, "0" * 16, binarization=binarization, validation_fraction=0.3, seed=5
        )

    resident, streamed = data(PIXELS), data(images)
    pairs = [(part(resident), part(streamed)) for part in (lambda data: data.training, lambda data: data.part("test"))]
    pairs += [(resident.for_evaluation(split), streamed.for_evaluation(split)) for split in SPLITS]
    assert asked(images) == []
    for one, other in pairs:
        assert isinstance(other.images, StreamedImages) and one.max_value == other.max_value
        np.testing.assert_array_equal(other.images[:], one.images, strict=True)
        np.testing.assert_array_equal(other.labels, one.labels)


def test_images_can_be_pickled_with_their_change() -> None:
    parts = StreamedImages(Recorder(), np.arange(9)), StreamedImages(Recorder(), np.arange(9, 12))
    data = Dataset("some", *parts, None, None, 255, "0" * 16, binarization="fixed")
    assert pickle.loads(pickle.dumps(data.train_images.rows)).tolist() == list(range(9))
    change = data.training.images.change
    numbers = np.arange(9)
    again = pickle.loads(pickle.dumps(change))
    np.testing.assert_array_equal(again(PIXELS[:9], numbers=numbers), change(PIXELS[:9], numbers=numbers))
    np.testing.assert_array_equal(again(PIXELS[:9], numbers=numbers), binarized_once(PIXELS[:9], 255, 0, 0))
