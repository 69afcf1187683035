"""Grids of images: where each pixel ends up, and that the file says the same."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from vae_jax.errors import UserError
from vae_jax.pictures import grid, side_by_side, write_png


def constant_images(values: list[float], channels: int = 1, side: int = 56) -> np.ndarray:
    """Images of one colour each, large enough not to be enlarged."""
    return np.stack([np.full((side, side, channels), value, np.float32) for value in values])


def test_images_go_along_rows_with_a_gap_of_one_pixel() -> None:
    picture = grid(constant_images([-3.0, 0.2, 7.0]), columns=2)
    assert picture.shape == (2 * 57 + 1, 2 * 57 + 1, 1) and picture.dtype == np.uint8
    corners = [picture[1, 1, 0], picture[1, 58, 0], picture[58, 1, 0]]
    assert corners == [0, 51, 255]
    # The gaps and the place that is left over are grey.
    assert set(picture[0, :, 0]) | set(picture[57, :, 0]) | set(picture[58:, 58:, 0].ravel()) == {128}


def test_small_images_are_enlarged_by_a_whole_factor() -> None:
    image = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32).reshape(1, 2, 2, 1)
    picture = grid(image, columns=1)[1:-1, 1:-1, 0]
    np.testing.assert_array_equal(picture, 255 * np.kron([[0, 1], [1, 0]], np.ones((28, 28))))


def test_originals_stand_left_of_their_reconstructions() -> None:
    picture = side_by_side(constant_images([0.0, 0.2]), constant_images([1.0, 0.6]), pairs_per_row=1)
    assert picture.shape[1] == 2 * 57 + 1
    assert [picture[top, left, 0] for top in (1, 58) for left in (1, 58)] == [0, 255, 51, 153]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (2, "L")])
def test_file_holds_the_picture(tmp_path: pathlib.Path, channels: int, mode: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, channels), np.uint8)
    write_png(tmp_path / "new" / "picture.png", picture)
    with Image.open(tmp_path / "new" / "picture.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", mode, (7, 9))
        expected = picture if channels == 3 else picture[..., 0]
        np.testing.assert_array_equal(np.asarray(image), expected)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]


def test_place_that_cannot_be_written_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/picture\.png can't be written"):
        write_png(tmp_path / "file" / "picture.png", np.zeros((2, 2, 1), np.uint8))
