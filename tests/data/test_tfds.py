"""TFDS data sets are found, decoded once, checked, and refused with one line that helps."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data.prepared import prepare

from vae_jax.data.tfds import load_tfds
from vae_jax.errors import UserError

REPOSITORY = Path(__file__).parents[2]
REAL_DATA = Path(os.environ.get("VAE_JAX_TEST_DATA") or REPOSITORY.parent / "shared" / "data") / "tfds"
SMALL = {"train": [(4, 3, 3)] * 6, "test": [(4, 3, 3)] * 3}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    return tmp_path / "tfds"


def assert_same_images(found: np.ndarray, expected: list[np.ndarray]) -> None:
    assert found.dtype == np.uint8
    assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in expected)


def test_images_and_labels_come_back(root: Path) -> None:
    pixels = prepare(root, SMALL)
    dataset = load_tfds("noise", str(root))
    assert (dataset.name, dataset.max_value, dataset.image_shape) == ("noise", 255, (4, 3, 3))
    assert_same_images(dataset.train_images, pixels["train"])
    assert_same_images(dataset.test_images, pixels["test"])
    assert dataset.train_labels is not None and dataset.train_labels.dtype == np.int32
    for image, label in zip(dataset.train_images, dataset.train_labels, strict=True):
        np.testing.assert_array_equal(image, pixels["train"][label])


def test_unlabelled_tensors_with_a_validation_part(root: Path) -> None:
    features = {"image": tfds.features.Tensor(shape=(4, 3, 1), dtype=np.uint8)}
    sizes = {"train": [(4, 3, 1)] * 4, "validation": [(4, 3, 1)] * 2}
    pixels = prepare(root, sizes, features, lambda index, image: {"image": image})
    dataset = load_tfds("noise", str(root))
    assert dataset.train_labels is None and dataset.test_labels is None
    assert_same_images(dataset.test_images, pixels["validation"])


def test_what_is_kept_equals_what_was_decoded_and_follows_the_data(root: Path) -> None:
    pixels = prepare(root, SMALL)
    first, second = load_tfds("noise", str(root)), load_tfds("noise:1.0.0", str(root))
    assert (first.name, first.fingerprint) == (second.name, second.fingerprint)
    np.testing.assert_array_equal(first.train_images, second.train_images)
    (kept,) = (root.parent / "user").glob("vae_jax/data/*/train_images.npy")
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert_same_images(load_tfds("noise", str(root)).train_images, pixels["train"])
    prepare(root, {**SMALL, "train": [(4, 3, 3)] * 7}, version="1.10.0")
    assert len(load_tfds("noise", str(root)).train_images) == 7
    assert len(load_tfds("noise:1.0.0", str(root)).train_images) == 6


def test_the_folder_is_found_as_tfds_finds_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, SMALL)
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert len(load_tfds("noise", None).train_images) == 6
    monkeypatch.delenv("TFDS_DATA_DIR")
    (root.parent / "home").mkdir()
    root.rename(root.parent / "home" / "tensorflow_datasets")
    assert len(load_tfds("noise", "").train_images) == 6


@pytest.mark.long
def test_the_second_start_imports_no_tfds(root: Path) -> None:
    prepare(root, SMALL)
    script = (
        "import sys; from vae_jax.data.tfds import load_tfds; load_tfds('noise', sys.argv[1]);"
        "print(*sorted({'tensorflow', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(root)]
    for imported in ("tensorflow_datasets", ""):
        ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == imported


def refused(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_tfds(name, str(root))
    message = str(caught.value)
    assert "\n" not in message and ";" in message
    return message


REFUSED = {
    "several sizes": ({"train": [(4, 3, 3), (5, 3, 3)], "test": [(4, 3, 3)]}, "differ in size"),
    "another size": ({"train": [(4, 3, 3)], "test": [(5, 3, 3)]}, "is 5x3x3, but the first one 4x3x3"),
    "no test part": ({"train": [(4, 3, 3)], "extra": [(4, 3, 3)]}, "extra"),
}


@pytest.mark.parametrize(("sizes", "words"), REFUSED.values(), ids=REFUSED)
def test_images_that_make_no_data_set_are_refused(root: Path, sizes: dict, words: str) -> None:
    prepare(root, sizes)
    assert words in refused("noise", root)


@pytest.mark.parametrize("keep", [0, -1])
def test_a_truncated_shard_is_refused(root: Path, keep: int) -> None:
    prepare(root, SMALL)
    (shard,) = root.glob("noise/*/*train*")
    shard.write_bytes(shard.read_bytes()[:keep])
    assert "cannot be read" in refused("noise", root)


NAMES = {
    "fashon_mnist": "did you mean fashion_mnist",
    "MNIST": "did you mean mnist",
    "mnist:1.0.0": "3.0.1",
    "": "can't be the name",
    "../mnist": "can't be the name",
    "a b": "can't be the name",
    "mnist:3": "can't be the name",
}


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_name_is_refused_with_the_closest(root: Path, name: str) -> None:
    assert NAMES[name] in refused(name, root)


@pytest.mark.manual
@pytest.mark.skipif(not (REAL_DATA / "mnist").is_dir(), reason=f"no prepared MNIST in {REAL_DATA}")
def test_the_true_mnist(root: Path) -> None:
    root.mkdir()
    (root / "mnist").symlink_to(REAL_DATA / "mnist")
    mnist = load_tfds("mnist", str(root))
    assert mnist.train_images.shape == (60000, 28, 28, 1) and mnist.test_images.shape == (10000, 28, 28, 1)
    # Known since 1998: how often each digit occurs, and the mean pixels.
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.train_labels is not None and np.bincount(mnist.train_labels).tolist() == counts
    assert mnist.test_images.mean() == pytest.approx(33.791224489795916, rel=1e-12)
    # An 8-bit copy in which pixels of value 1 became 0 is also in use, and is darker by 5e-4.
    assert mnist.train_images.mean() == pytest.approx(33.318421449829934, abs=6e-4)
