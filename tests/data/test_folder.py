"""A folder of images is read in an order of its own, brought to one size, and refused with one line that helps."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_jax.data import folder
from vae_jax.data.dataset import Dataset
from vae_jax.data.decoding import Sizing, middle_square
from vae_jax.data.dividing import split_indices
from vae_jax.data.folder import load_folder
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import UserError


@pytest.fixture(autouse=True)
def own_user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


def write(path: Path, seed: int = 0, size: tuple[int, ...] = (4, 3, 3), mode: str | None = None) -> np.ndarray:
    """Random pixels in a file."""
    pixels = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return pixels


def load(root: Path, image_size: int = 0, resident_mb: int = 1, test_fraction: float = 0.25, seed: int = 3) -> Dataset:
    return load_folder(str(root), test_fraction, seed, Sizing(image_size), resident_mb)


def assert_same(one: Dataset, other: Dataset) -> None:
    assert (one.name, one.max_value, one.fingerprint) == (other.name, other.max_value, other.fingerprint)
    for name in ("train_images", "test_images", "train_labels", "test_labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("resident_mb", [0, 1])
def test_a_folder_without_parts_is_divided_by_sorted_names(root: Path, resident_mb: int) -> None:
    names = [f"{index:02d}.{kind}" for index, kind in enumerate(["png", "PNG", "bmp", "tiff", "tif", "png"] * 2)]
    pixels = np.stack([write(root / name, seed) for seed, name in reversed(list(enumerate(names)))])[::-1]
    for other in (".hidden.png", "notes.txt", ".classes/a.png"):
        (root / other).parent.mkdir(exist_ok=True)
        (root / other).write_text("no image")
    dataset = load(root, resident_mb=resident_mb)
    assert isinstance(dataset.train_images, StreamedImages if resident_mb == 0 else np.ndarray)
    train, test = split_indices(12, 0.25, 3)
    np.testing.assert_array_equal(dataset.train_images, pixels[train])
    np.testing.assert_array_equal(dataset.test_images, pixels[test])
    assert (dataset.name, dataset.max_value, dataset.image_shape) == ("pictures", 255, (4, 3, 3))
    assert dataset.train_labels is None and dataset.test_labels is None


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_parts_and_classes_are_folders(root: Path, test: str) -> None:
    expected = {}
    for part, classes in (("train", ["cat", "dog", "cow"]), (test, ["dog", "cow", "cat"])):
        for name in classes:
            for index in range(2):
                expected[part, name, index] = write(root / part / name / f"{index}.png", len(expected))
    (root / "train" / "__MACOSX").mkdir()
    (root / "train" / "__MACOSX" / "._0.png").write_text("")
    dataset = load(root)
    assert dataset.train_labels is not None and dataset.train_labels.dtype == np.int32
    assert dataset.train_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert dataset.class_names == ("cat", "cow", "dog")
    for part, images, labels in (
        ("train", dataset.train_images, dataset.train_labels),
        (test, dataset.test_images, dataset.test_labels),
    ):
        for row, image in enumerate(images):
            np.testing.assert_array_equal(image, expected[part, ["cat", "cow", "dog"][labels[row]], row % 2])
    assert_same(load(root, resident_mb=0), dataset)


def test_divided_images_keep_their_classes(root: Path) -> None:
    for index in range(12):
        write(root / "abc"[index % 3] / f"{index}.png", index)
    dataset = load(root, resident_mb=0)
    train, _ = split_indices(12, 0.25, 3)
    assert dataset.train_labels is not None
    np.testing.assert_array_equal(dataset.train_labels, np.repeat(np.arange(3), 4)[train])


@pytest.mark.parametrize("resident_mb", [0, 1])
def test_subfolders_are_searched_and_the_first_is_the_class(root: Path, resident_mb: int) -> None:
    """In the order of one level: a folder's own pictures, then those of the folders in it."""
    names = ["cat/9.png", "cat/tabby/0.png", "cat/tabby/old/1.png", "cat-like/a/b/c/0.png", "dog/0.png", "dog/a/0.png"]
    pixels = np.stack([write(root / "train" / name, seed) for seed, name in enumerate(names)])
    write(root / "test" / "dog" / "deep" / "0.png", 7)
    (root / "train" / "dog" / "again").symlink_to(root / "train" / "dog", target_is_directory=True)
    dataset = load(root, resident_mb=resident_mb)
    np.testing.assert_array_equal(dataset.train_images, pixels)
    assert dataset.class_names == ("cat", "cat-like", "dog")
    assert dataset.train_labels is not None and dataset.train_labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert dataset.test_labels is not None and dataset.test_labels.tolist() == [2]


def test_a_single_class_gives_no_labels(root: Path) -> None:
    for index in range(4):
        write(root / "train" / "img_align" / f"{index}.png", index)
    dataset = load(root)
    assert dataset.train_labels is None and dataset.class_names == ()
    assert (len(dataset.train_images), len(dataset.test_images)) == (3, 1)


def test_the_cache_is_used_and_follows_the_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        write(root / f"{index}.png", index)
    first = load(root)

    def fail(*arguments) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as context:
        context.setattr(folder.FolderReader, "read", fail)
        assert_same(load(root), first)
        other = load(root, seed=4)
    assert other.fingerprint != first.fingerprint
    assert load(root, image_size=2).image_shape == (2, 2, 3)
    changed = write(root / "0.png", 99)
    os.utime(root / "0.png", (1, 1))
    newer = load(root)
    assert newer.fingerprint != first.fingerprint
    assert any((image == changed).all() for image in [*newer.train_images, *newer.test_images])


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_the_first_image_decides_between_grey_and_colours(root: Path, mode: str, channels: int) -> None:
    write(root / "0.png", 0, mode=mode)
    write(root / "1.png", 1)
    write(root / "2.png", 2, mode="L")
    dataset = load(root, resident_mb=0)
    images = np.concatenate([dataset.train_images[:], dataset.test_images[:]])
    assert images.shape == (3, 4, 3, channels)


def test_pixels_of_16_bits_are_rounded(root: Path) -> None:
    root.mkdir()
    values = np.array([[0, 128, 129, 257, 65535, 65407, 65406]], np.uint16)
    for name in ("0.png", "1.tif"):
        Image.fromarray(values).save(root / name)
    dataset = load(root, test_fraction=0.5)
    assert dataset.train_images.ravel().tolist() == [0, 0, 1, 1, 255, 255, 254]
    np.testing.assert_array_equal(dataset.train_images, dataset.test_images)


def test_a_palette_with_transparency_is_read_without_a_warning(root: Path) -> None:
    root.mkdir()
    for name in ("0.png", "1.png"):
        image = Image.new("P", (3, 4), 1)
        image.putpalette([0, 0, 0, 9, 8, 7])
        image.save(root / name, transparency=b"\x00\x80")
    assert load(root).train_images[0, 0, 0].tolist() == [9, 8, 7]


def test_the_middle_square_is_cut_and_resized(root: Path) -> None:
    pixels = write(root / "0.png", 0, (6, 11, 3))
    other = write(root / "1.png", 1, (9, 4, 3))
    dataset = load(root, image_size=4)
    found = sorted(image.tobytes() for image in [*dataset.train_images, *dataset.test_images])
    assert found == sorted(middle_square(image, 4).tobytes() for image in (pixels, other))
    np.testing.assert_array_equal(middle_square(other, 4), other[2:6])
    expected = Image.fromarray(pixels[:, 2:8]).resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(middle_square(pixels, 4), expected)


def test_resizing_is_antialiased_and_keeps_the_range() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., np.newaxis]
    small = middle_square(stripes, 8)
    assert small.shape == (8, 8, 1)
    # Without antialiasing every pixel would be black, or every one white.
    assert np.abs(small.astype(int) - 127).max() < 12
    assert middle_square(np.full((5, 7, 3), 200, np.uint8), 16).min() == 200


def refused(root: Path, **settings) -> str:
    messages = set()
    for resident_mb in (0, 1):
        with pytest.raises(UserError) as caught:
            dataset = load(root, resident_mb=resident_mb, **settings)
            np.asarray(dataset.train_images), np.asarray(dataset.test_images)
        messages.add(str(caught.value))
    (message,) = messages
    assert "\n" not in message and ";" in message
    return message


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"folder '' not found; set --config\.data\.dir=FOLDER"):
        load_folder("", 0.2, 0, Sizing(), 0)
    assert "nowhere' not found" in refused(tmp_path / "nowhere")


def test_a_folder_without_images_is_refused(root: Path) -> None:
    (root / "a" / "b").mkdir(parents=True)
    write(root / "a" / ".b" / "0.png")
    assert f"no images in '{root}/'" in refused(root) or f"no images in '{root}'" in refused(root)
    write(root / "train" / "0.png")
    (root / "test").mkdir()
    assert f"'{root / 'test'}'" in refused(root)


def test_several_sizes_are_refused(root: Path) -> None:
    write(root / "0.png")
    write(root / "1.png", size=(4, 5, 3))
    message = refused(root)
    assert "1.png' is 4x5x3, but the first one 4x3x3" in message and "--config.data.image_size=" in message
    assert load(root, image_size=4).image_shape == (4, 4, 3)


@pytest.mark.parametrize("content", [b"", b"no image", None])
@pytest.mark.parametrize("name", ["0.png", "1.png"])
def test_a_damaged_file_is_named(root: Path, name: str, content: bytes | None) -> None:
    write(root / "0.png", size=(40, 40, 3))
    write(root / "1.png", size=(40, 40, 3))
    (root / name).write_bytes((root / name).read_bytes()[:1000] if content is None else content)
    message = refused(root)
    assert message.count(str(root / name)) == 1 and "repair or remove it" in message


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to("/dev/zero")]
)
def test_pipes_and_broken_links_are_refused_at_once(root: Path, make: Callable[[Path], None]) -> None:
    for name in ("0.png", "1.png", "3.png"):
        write(root / name)
    make(root / "2.png")
    message = refused(root)
    assert message.count(str(root / "2.png")) == 1 and "repair or remove it" in message
    assert len(load_folder(str(root), 0.34, 0, Sizing(), 1, "skip").train_images) == 2


def test_pixels_of_32_bits_are_refused(root: Path) -> None:
    root.mkdir()
    for name in ("0.tif", "1.tif"):
        Image.fromarray(np.zeros((2, 2), np.float32)).save(root / name)
    assert "32 bits" in refused(root)


def test_images_beside_classes_are_refused(root: Path) -> None:
    write(root / "0.png")
    write(root / "a" / "1.png")
    assert "(0.png)" in refused(root) and "(a/1.png)" in refused(root)


def test_classes_in_one_part_only_are_refused(root: Path) -> None:
    write(root / "train" / "a" / "0.png")
    write(root / "train" / "b" / "1.png")
    write(root / "test" / "0.png")
    assert "(train/b/1.png)" in refused(root) and "(test/0.png)" in refused(root)


def test_one_image_alone_is_refused(root: Path) -> None:
    write(root / "0.png")
    message = refused(root)
    assert "holding out 1 of 1 image leaves none" in message and "use more images" in message


def test_files_that_cannot_be_read_are_named_and_left_out(root: Path, capsys: pytest.CaptureFixture) -> None:
    pixels = [write(root / f"{index}.png", index) for index in range(8)]
    (root / "8.png").write_bytes((root / "0.png").read_bytes()[:50])
    (root / "0a.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"0a\.jpg.*can't be read as an image.*unreadable=skip"):
        load(root)
    for _ in range(2):  # the second time from what was kept
        dataset = load_folder(str(root), 0.25, 3, Sizing(), 1, "skip")
        train, test = split_indices(8, 0.25, 3)
        np.testing.assert_array_equal(dataset.train_images, np.stack(pixels)[train])
        np.testing.assert_array_equal(dataset.test_images, np.stack(pixels)[test])
        assert "2 of 10 files can't be read as images and are left out: 0a.jpg, 8.png" in capsys.readouterr().err
    for path in root.glob("[0-7].png"):
        path.unlink()
    with pytest.raises(UserError, match="there are no images"):
        load_folder(str(root), 0.25, 3, Sizing(), 1, "skip")


def test_image_fit_resize_takes_the_whole_image(root: Path) -> None:
    pixels = write(root / "0.png", size=(8, 6, 3))
    write(root / "1.png", seed=1, size=(5, 9, 3))
    dataset = load_folder(str(root), 0.5, 0, Sizing(4, "resize"), 1)
    found = {image.tobytes() for image in (dataset.train_images[0], dataset.test_images[0])}
    assert np.asarray(Image.fromarray(pixels).resize((4, 4), Image.Resampling.BILINEAR)).tobytes() in found
    assert dataset.fingerprint != load(root, image_size=4, test_fraction=0.5, seed=0).fingerprint


@pytest.mark.parametrize("unreadable", ["refuse", "skip"])
def test_file_names_with_unusual_characters(root: Path, unreadable: str, capsys: pytest.CaptureFixture) -> None:
    """Control characters, line ends, and bytes that are no UTF-8; in errors, in lists and as names of classes."""
    strange = ["\x1b[2J", "a\nb", "\udcff\udcfe", "\u202egnp"]
    pixels = [write(root / f"{name}" / f"{name}.png", number) for number, name in enumerate(strange)]
    dataset = load_folder(str(root), 0.25, 0, Sizing(), 1, unreadable)
    assert dataset.class_names == (r"\x1b[2J", r"a\x0ab", r"\u202egnp", r"\xff\xfe")
    found = [*dataset.train_images, *dataset.test_images]
    assert sorted(map(bytes, found)) == sorted(map(bytes, pixels))
    for name in strange:
        (root / name / f"{name}.jpg").write_text("no picture")
    if unreadable == "refuse":
        with pytest.raises(UserError) as caught:
            load_folder(str(root), 0.25, 0, Sizing(), 1, unreadable)
        said = str(caught.value)
    else:
        assert len(load_folder(str(root), 0.25, 0, Sizing(), 1, unreadable).train_images) == 3
        said = capsys.readouterr().err.rstrip("\n")
        assert "4 of 8 files" in said
    assert said.isprintable() and "[2J" in said
