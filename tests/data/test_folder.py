"""A folder of images is read in an order of its own, brought to one size, and refused with one line that helps."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_jax.data import folder
from vae_jax.data.dataset import Dataset
from vae_jax.data.decoding import Sizing
from vae_jax.data.dividing import split_indices
from vae_jax.data.folder import load_folder
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import UserError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "pictures"


def write(path: Path, seed: int = 0, size: tuple[int, ...] = (4, 3, 3), mode: str = "RGB") -> np.ndarray:
    """Random pixels in a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


def load(root: Path, resident_mb: int = 1, size: Sizing | None = None, unreadable: str = "refuse") -> Dataset:
    return load_folder(str(root), 0.25, 3, size or Sizing(), resident_mb, unreadable)


def all_images(dataset: Dataset) -> set[bytes]:
    return {image.tobytes() for part in (dataset.train_images, dataset.test_images) for image in part}


@pytest.mark.parametrize("resident_mb", [0, 1])
def test_a_folder_without_parts_is_divided_by_sorted_names(root: Path, resident_mb: int) -> None:
    names = [f"{index:02d}.{kind}" for index, kind in enumerate(["png", "PNG", "bmp", "tiff", "tif", "png"] * 2)]
    pixels = np.stack([write(root / name, seed) for seed, name in reversed(list(enumerate(names)))])[::-1]
    for other in (".hidden.png", "notes.txt", ".classes/a.png"):
        (root / other).parent.mkdir(exist_ok=True)
        (root / other).write_text("no image")
    dataset = load(root, resident_mb)
    assert isinstance(dataset.train_images, StreamedImages if resident_mb == 0 else np.ndarray)
    train, test = split_indices(12, 0.25, 3)
    np.testing.assert_array_equal(dataset.train_images, pixels[train])
    np.testing.assert_array_equal(dataset.test_images, pixels[test])
    assert (dataset.name, dataset.max_value, dataset.image_shape) == ("pictures", 255, (4, 3, 3))
    assert dataset.train_labels is None and dataset.test_labels is None


def test_divided_images_keep_their_classes(root: Path) -> None:
    for index in range(12):
        write(root / "abc"[index % 3] / f"{index}.png", index)
    train, _ = split_indices(12, 0.25, 3)
    np.testing.assert_array_equal(load(root).train_labels, np.repeat(np.arange(3), 4)[train])


@pytest.mark.parametrize("resident_mb", [0, 1])
@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_parts_and_classes_are_folders(root: Path, test: str, resident_mb: int) -> None:
    """In the order of one level: a folder's own pictures, then those of the folders in it."""
    names = ["cat/9.png", "cat/tabby/0.png", "cat/tabby/old/1.png", "cat-like/a/b/c/0.png", "dog/0.png", "dog/a/0.png"]
    pixels = np.stack([write(root / "train" / name, seed) for seed, name in enumerate(names)])
    write(root / test / "dog" / "deep" / "0.png", 7)
    (root / "train" / "dog" / "again").symlink_to(root / "train" / "dog", target_is_directory=True)
    (root / "train" / "__MACOSX").mkdir()
    (root / "train" / "__MACOSX" / "._0.png").write_text("")
    dataset = load(root, resident_mb)
    np.testing.assert_array_equal(dataset.train_images, pixels)
    assert dataset.class_names == ("cat", "cat-like", "dog")
    assert dataset.train_labels is not None and dataset.train_labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert dataset.test_labels is not None and dataset.test_labels.tolist() == [2]


def test_the_cache_is_used_and_follows_the_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        write(root / f"{index}.png", index)
    first = load(root)

    def fail(*arguments) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as context:
        context.setattr(folder.FolderReader, "read", fail)
        again = load(root)
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.train_images, first.train_images)
    assert load(root, size=Sizing(2)).image_shape == (2, 2, 3)
    changed = write(root / "0.png", 99)
    os.utime(root / "0.png", (1, 1))
    newer = load(root)
    assert newer.fingerprint != first.fingerprint and changed.tobytes() in all_images(newer)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_the_first_image_decides_between_grey_and_colours(root: Path, mode: str, channels: int) -> None:
    write(root / "0.png", 0, mode=mode)
    write(root / "1.png", 1)
    write(root / "2.png", 2, mode="L")
    assert load(root, resident_mb=0).train_images.shape == (2, 4, 3, channels)


def test_pixels_of_16_bits_are_rounded(root: Path) -> None:
    root.mkdir()
    values = np.array([[0, 128, 129, 257, 65535, 65407, 65406]], np.uint16)
    for name in ("0.png", "1.tif"):
        Image.fromarray(values).save(root / name)
    assert all_images(load(root)) == {bytes([0, 0, 1, 1, 255, 255, 254])}


def test_images_are_cut_or_resized_to_one_size(root: Path) -> None:
    wide, high = write(root / "0.png", 0, (6, 11, 3)), write(root / "1.png", 1, (9, 4, 3))
    whole = [np.asarray(Image.fromarray(image).resize((4, 4), Image.Resampling.BILINEAR)) for image in (wide, high)]
    middle = np.asarray(Image.fromarray(wide[:, 2:8]).resize((4, 4), Image.Resampling.BILINEAR))
    cut, resized = load(root, size=Sizing(4)), load(root, size=Sizing(4, "resize"))
    assert all_images(cut) == {middle.tobytes(), high[2:6].tobytes()}
    assert all_images(resized) == {image.tobytes() for image in whole}
    assert cut.fingerprint != resized.fingerprint


def refused(root: Path) -> str:
    messages = set()
    for resident_mb in (0, 1):
        with pytest.raises(UserError) as caught:
            dataset = load(root, resident_mb)
            np.asarray(dataset.train_images), np.asarray(dataset.test_images)
        messages.add(str(caught.value))
    (message,) = messages
    assert "\n" not in message and ";" in message
    return message


REFUSED = {
    "several sizes": ({"0.png": (4, 3, 3), "1.png": (4, 5, 3)}, "1.png' is 4x5x3, but the first one 4x3x3"),
    "images beside classes": ({"0.png": (4, 3, 3), "a/1.png": (4, 3, 3)}, "(a/1.png)"),
    "classes in one part": (
        {"train/a/0.png": (4, 3, 3), "train/b/1.png": (4, 3, 3), "test/0.png": (4, 3, 3)},
        "train/b/1.png",
    ),
    "one image": ({"0.png": (4, 3, 3)}, "holding out 1 of 1 image leaves none"),
    "hidden images": ({".b/0.png": (4, 3, 3)}, "no images in '"),
    "nothing": ({}, "' not found"),
}


@pytest.mark.parametrize(("files", "words"), REFUSED.values(), ids=REFUSED)
def test_folder_that_makes_no_data_set_is_refused(root: Path, files: dict, words: str) -> None:
    for name, size in files.items():
        write(root / name, size=size)
    assert words in refused(root)


HARM = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "empty": lambda path: path.write_bytes(b""),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "broken link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
@pytest.mark.parametrize("name", ["0.png", "1.png"])
def test_a_damaged_file_is_named_or_left_out(root: Path, name: str, harm, capsys: pytest.CaptureFixture) -> None:
    pixels = [write(root / f"{index}.png", index, (40, 40, 3)) for index in range(4)]
    harm(root / name)
    message = refused(root)
    assert message.count(str(root / name)) == 1 and "repair or remove it" in message
    for _ in range(2):  # the second time from what was kept
        dataset = load(root, unreadable="skip")
        assert all_images(dataset) == {image.tobytes() for i, image in enumerate(pixels) if f"{i}.png" != name}
        assert f"1 of 4 files can't be read as images and are left out: {name}" in capsys.readouterr().err


@pytest.mark.parametrize("unreadable", ["refuse", "skip"])
def test_file_names_with_unusual_characters(root: Path, unreadable: str, capsys: pytest.CaptureFixture) -> None:
    """Control characters, line ends, and bytes that are no UTF-8; in errors, in lists and as names of classes."""
    strange = ["\x1b[2J", "a\nb", "\udcff\udcfe", "\u202egnp"]
    pixels = [write(root / f"{name}" / f"{name}.png", number) for number, name in enumerate(strange)]
    dataset = load(root)
    assert dataset.class_names == (r"\x1b[2J", r"a\x0ab", r"\u202egnp", r"\xff\xfe")
    assert all_images(dataset) == set(map(bytes, pixels))
    for name in strange:
        (root / name / f"{name}.jpg").write_text("no picture")
    if unreadable == "refuse":
        said = refused(root)
    else:
        load(root, unreadable=unreadable)
        said = capsys.readouterr().err.rstrip("\n")
        assert "4 of 8 files" in said
    assert said.isprintable() and "[2J" in said
