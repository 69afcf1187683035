"""Numbers that a conditional model is told: from an archive, from a CSV file, through the parts of a data set."""

import dataclasses
import pathlib

import numpy as np
import pytest
from PIL import Image

from vae_jax.data import Dataset, load_folder, load_npz
from vae_jax.data.decoding import Sizing
from vae_jax.data.user_images import read_images
from vae_jax.errors import UserError

CSV = "file,age,note,width\na.png,1.5,x,10\nsub/../b.png,-2,y,2e1\nc.png,0,,30\nd.png,4,z,40\nunused.png,,,\n"
IMAGES = np.repeat(np.arange(8, dtype=np.uint8), 9).reshape(8, 3, 3)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Four images: all pixels of the n-th are n."""
    for image, name in zip(IMAGES, "abcd", strict=False):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    return tmp_path


def of_folder(folder: pathlib.Path, columns: str = "age,width", text: str = CSV) -> Dataset:
    (folder / "facts.csv").write_text(text)
    return load_folder(str(folder), 0.25, 0, Sizing(), 1, labels=str(folder / "facts.csv"), context=columns)


def of_archive(folder: pathlib.Path, **arrays: np.ndarray) -> Dataset:
    np.savez(folder / "a.npz", **arrays)
    return load_npz(str(folder / "a.npz"), 0.25, 0)


def assert_goes_with_images(dataset: Dataset, by_image: np.ndarray) -> None:
    dataset = dataclasses.replace(dataset, validation_fraction=0.3)
    for split in ("train", "validation", "test"):
        part = dataset.part(split)
        assert len(part.images) and part.context.dtype == np.float32, split
        np.testing.assert_array_equal(part.context, by_image[np.asarray(part.images)[:, 0, 0, 0]])


def test_a_row_of_the_csv_goes_with_its_image(folder: pathlib.Path) -> None:
    dataset = of_folder(folder)
    assert_goes_with_images(dataset, np.array([[1.5, 10], [-2, 20], [0, 30], [4, 40]], np.float32))
    assert dataset.kind.context_names == ("age", "width") and dataset.kind.context_size == 2
    text = "file,b,a\na.png,1,2\nb.png,3,4\nc.png,5,6\nd.png,7,8\n"
    assert of_folder(folder, "", text).kind.context_names == ("b", "a")


def test_fingerprint_follows_the_numbers(folder: pathlib.Path) -> None:
    datasets = (
        load_folder(str(folder), 0.25, 0, Sizing(), 1),
        of_folder(folder),
        of_folder(folder, text=CSV.replace("1.5", "1.6")),
    )
    found = {dataset.fingerprint for dataset in datasets}
    assert len(found) == 3 and of_folder(folder).fingerprint in found


@pytest.mark.parametrize(
    "columns, text, message",
    [
        ("age,height", CSV, "has no numbers 'height' among its columns (file, age, note, width)"),
        ("", "file\na.png\n", "has no numbers ''"),
        ("", CSV, "note of a.png is 'x', which is no finite number"),
        ("age", CSV.replace("c.png", "e.png"), "has no row for the image c.png"),
        ("age", CSV.replace("c.png,0", "c.png,1e300"), "age of c.png is '1e300'"),
        ("age", CSV.replace("c.png", "a.png"), "row 4 has not 4 cells, or names an image again"),
        ("age", CSV.replace("c.png,0", "c.png"), "row 4 has not 4 cells"),
        ("age", CSV.replace("file", "name"), "needs a first line with a column 'file'"),
        ("age", CSV.replace("note", "age"), "no name twice"),
        ("age", 'file,age\n"a.png,1\n', "can't be read as CSV"),
    ],
)
def test_csv_that_does_not_fit(folder: pathlib.Path, columns: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        of_folder(folder, columns, text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_context_of_an_archive(tmp_path: pathlib.Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    dataset = of_archive(tmp_path, images=IMAGES, context=numbers, context_names=np.array(["age", "width"]))
    assert_goes_with_images(dataset, numbers)
    assert dataset.kind.context_names == ("age", "width")
    found, _ = read_images(str(tmp_path / "a.npz"), dataset.kind)
    np.testing.assert_array_equal(found.split.context, numbers)
    single = of_archive(tmp_path, images=IMAGES, context=np.arange(8), labels=np.arange(8))
    assert_goes_with_images(single, np.arange(8, dtype=np.float32)[:, None])
    assert single.kind.context_names == ("context0",) and single.num_classes == 8
    parts = {"train_images": IMAGES[:6], "test_images": IMAGES[6:], "train_context": numbers[:6]}
    assert_goes_with_images(of_archive(tmp_path, **parts, test_context=numbers[6:]), numbers)
    with pytest.raises(UserError, match="train_context and test_context must both be there"):
        of_archive(tmp_path, **parts)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"context": np.zeros((7, 2))}, "must be finite numbers [8, C] or [8]"),
        ({"context": np.full(8, np.nan)}, "must be finite numbers"),
        ({"context": np.full(8, 1e300)}, "must be finite numbers"),
        ({"context": np.full(8, "x")}, "must be finite numbers"),
        ({"context": np.zeros((8, 2)), "context_names": np.array(["a"])}, "context_names must be 2 texts"),
    ],
)
def test_archive_that_does_not_fit(tmp_path: pathlib.Path, arrays: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        of_archive(tmp_path, images=IMAGES, **arrays)
    assert message in str(error.value) and "\n" not in str(error.value)
