"""Numbers that a conditional model is told: from an archive, from a CSV file, through the parts of a data set."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from vae_jax.data import Dataset, ImageKind, load_folder, load_npz
from vae_jax.data.decoding import Sizing
from vae_jax.data.user_images import read_images
from vae_jax.errors import UserError

CSV = "file,age,note,width\na.png,1.5,x,10\nsub/../b.png,-2,y,2e1\nc.png,0,,30\nd.png,4,z,40\nunused.png,,,\n"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Four images: all pixels of the n-th are n."""
    root = tmp_path / "images"
    root.mkdir()
    for number, name in enumerate("abcd"):
        Image.fromarray(np.full((3, 3), number, np.uint8)).save(root / f"{name}.png")
    (root / "facts.csv").write_text(CSV)
    return root


def of_folder(folder: pathlib.Path, columns: str = "age,width", text: str = CSV) -> Dataset:
    (folder / "facts.csv").write_text(text)
    return load_folder(str(folder), 0.25, 0, Sizing(), 1, labels=str(folder / "facts.csv"), context=columns)


def assert_goes_with_images(dataset: Dataset, by_image: np.ndarray) -> None:
    for split in ("train", "validation", "test"):
        part = dataset.part(split)
        assert len(part.images), split
        assert part.context.dtype == np.float32
        np.testing.assert_array_equal(part.context, by_image[np.asarray(part.images)[:, 0, 0, 0]])
        np.testing.assert_array_equal(part.given, part.context)


def test_a_row_of_the_csv_goes_with_its_image(folder: pathlib.Path) -> None:
    dataset = dataclasses.replace(of_folder(folder), validation_fraction=0.3)
    assert_goes_with_images(dataset, np.array([[1.5, 10], [-2, 20], [0, 30], [4, 40]], np.float32))
    assert dataset.kind.context_names == ("age", "width") and dataset.kind.context_size == 2
    assert "no classes, context of age, width" in str(dataset)
    assert of_folder(folder, "width").kind.context_names == ("width",)
    assert of_folder(
        folder,
        "",
        CSV.replace(",note", ",note2")
        .replace("x,", "1,")
        .replace("y,", "2,")
        .replace("0,,30", "0,5,30")
        .replace("z,", "3,"),
    ).kind.context_names == ("age", "note2", "width")


def test_fingerprint_follows_the_numbers(folder: pathlib.Path) -> None:
    plain = load_folder(str(folder), 0.25, 0, Sizing(), 1)
    found = {
        plain.fingerprint,
        of_folder(folder).fingerprint,
        of_folder(folder, text=CSV.replace("1.5", "1.6")).fingerprint,
    }
    assert len(found) == 3 and of_folder(folder).fingerprint in found


@pytest.mark.parametrize(
    "columns, text, message",
    [
        ("age,height", CSV, "has no numbers 'height' among its columns (file, age, note, width)"),
        ("file", CSV, "has no numbers 'file'"),
        ("", "file\na.png\n", "has no numbers ''"),
        ("", CSV, "note of a.png is 'x', which is no finite number"),
        ("age", CSV.replace("c.png", "e.png"), "has no row for the image c.png"),
        ("age", CSV.replace("c.png,0", "c.png,"), "age of c.png is '', which is no finite number"),
        ("age", CSV.replace("c.png,0", "c.png,1e300"), "age of c.png is '1e300'"),
        ("age", CSV.replace("c.png,0", "c.png,inf"), "age of c.png is 'inf'"),
        ("age", CSV.replace("c.png", "a.png"), "row 4 has not 4 cells, or names an image again"),
        ("age", CSV.replace("c.png,0", "c.png"), "row 4 has not 4 cells"),
        ("age", CSV.replace("file", "name"), "needs a first line with a column 'file'"),
        ("age", CSV.replace("note", "age"), "no name twice"),
        ("age", "", "needs a first line"),
        ("age", 'file,age\n"a.png,1\n', "can't be read as CSV"),
    ],
)
def test_csv_that_does_not_fit(folder: pathlib.Path, columns: str, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        of_folder(folder, columns, text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_csv_that_is_not_there(folder: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv' can't be read as CSV"):
        load_folder(str(folder), 0.25, 0, Sizing(), 1, labels=str(folder / "absent.csv"))


IMAGES = np.repeat(np.arange(8, dtype=np.uint8), 9).reshape(8, 3, 3)


def saved(path: pathlib.Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_context_of_an_archive(tmp_path: pathlib.Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(8, 2))
    path = saved(tmp_path / "a.npz", images=IMAGES, context=numbers, context_names=np.array(["age", "width"]))
    dataset = dataclasses.replace(load_npz(path, 0.25, 0), validation_fraction=0.3)
    assert_goes_with_images(dataset, numbers.astype(np.float32))
    assert dataset.kind.context_names == ("age", "width")
    one = saved(tmp_path / "b.npz", images=IMAGES, context=np.arange(8), labels=np.arange(8))
    single = load_npz(one, 0.25, 0)
    np.testing.assert_array_equal(single.train_context[:, 0], single.train_images[:, 0, 0, 0])
    assert single.kind.context_names == ("context0",) and single.num_classes == 8 and single.kind.context_size == 1
    parts = {"train_images": IMAGES[:6], "test_images": IMAGES[6:]}
    parts |= {"train_context": numbers[:6], "test_context": numbers[6:]}
    apart = load_npz(saved(tmp_path / "c.npz", **parts), 0.25, 0)
    np.testing.assert_array_equal(apart.test_context, numbers[6:].astype(np.float32))
    plain = load_npz(saved(tmp_path / "d.npz", images=IMAGES), 0.25, 0)
    assert plain.train_context is None and plain.fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"context": np.zeros((7, 2))}, "must be finite numbers [8, C] or [8]"),
        ({"context": np.full(8, np.nan)}, "must be finite numbers"),
        ({"context": np.full(8, 1e300)}, "must be finite numbers"),
        ({"context": np.full(8, "x")}, "must be finite numbers"),
        ({"context": np.zeros((8, 0))}, "must be finite numbers"),
        ({"context": np.array(1.0)}, "must be finite numbers"),
        ({"context": np.zeros((8, 2)), "context_names": np.array(["a"])}, "context_names must be 2 texts"),
        ({"context": np.zeros((8, 1)), "context_names": np.array([1])}, "context_names must be 1 texts"),
    ],
)
def test_archive_that_does_not_fit(tmp_path: pathlib.Path, arrays: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        load_npz(saved(tmp_path / "a.npz", images=IMAGES, **arrays), 0.25, 0)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_contexts_of_one_part_only(tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path / "a.npz", train_images=IMAGES, test_images=IMAGES, train_context=np.zeros((8, 2)))
    with pytest.raises(UserError, match="train_context and test_context must both be there"):
        load_npz(path, 0.25, 0)


def test_context_of_images_brought_along(tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path / "a.npz", images=IMAGES, context=np.arange(16.0).reshape(8, 2))
    found, _ = read_images(path, ImageKind((3, 3, 1), 255, 0, (), ("a", "b")))
    np.testing.assert_array_equal(found.split.context, np.arange(16.0).reshape(8, 2))


def test_kind_remembers_the_names() -> None:
    kind = ImageKind((3, 3, 1), 255, 2, (), ("age", "width"))
    mapping = json.loads(json.dumps(dataclasses.asdict(kind)))
    assert ImageKind.from_mapping(mapping) == kind
    del mapping["context_names"]
    assert ImageKind.from_mapping(mapping).context_names == ()
    for wrong in ([1], None, 3):
        with pytest.raises(ValueError, match="expected in"):
            ImageKind.from_mapping({**mapping, "context_names": wrong})
