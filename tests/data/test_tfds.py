"""TFDS data sets are found, decoded once, checked, and refused with one line that helps."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.extractor import ExtractError

from vae_jax.data.tfds import load_tfds
from vae_jax.errors import UserError

REPOSITORY = Path(__file__).parents[2]
REAL_DATA = Path(os.environ.get("VAE_JAX_TEST_DATA") or REPOSITORY.parent / "shared" / "data") / "tfds"


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "tfds"


class Noise:
    """Pixels and labels for a data set whose `image` is stored as it is or as PNG."""

    def __init__(self, sizes: dict[str, list[tuple[int, ...]]]) -> None:
        rng = np.random.default_rng(0)
        self.images = {
            split: [rng.integers(0, 256, size, np.uint8) for size in split_sizes]
            for split, split_sizes in sizes.items()
        }


def prepare(root: Path, noise: Noise, features: dict, example: Callable, version: str = "1.0.0") -> None:
    """Prepares the data set `noise` with TFDS's own writer, without any code TFDS could find later."""
    from tensorflow_datasets.core import registered

    with registered.skip_registration():

        class NoiseBuilder(tfds.core.GeneratorBasedBuilder):
            name = "noise"
            VERSION = tfds.core.Version(version)

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in noise.images}

            def _generate_examples(self, split):
                for index, image in enumerate(noise.images[split]):
                    yield index, example(index, image)

    NoiseBuilder(data_dir=root).download_and_prepare(file_format="array_record")


def pixels(shape: tuple[int | None, ...]) -> tfds.features.FeatureConnector:
    return tfds.features.Image(shape=shape)


def png(image: np.ndarray):
    from PIL import Image

    return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


LABELLED = {"image": pixels((4, 3, 3)), "label": tfds.features.ClassLabel(num_classes=10)}


def labelled(index: int, image: np.ndarray) -> dict:
    return {"image": png(image), "label": index}


def assert_same_images(found: np.ndarray, expected: list[np.ndarray]) -> None:
    assert found.dtype == np.uint8
    assert sorted(image.tobytes() for image in found) == sorted(image.tobytes() for image in expected)


def test_images_and_labels_come_back(root: Path) -> None:
    noise = Noise({"train": [(4, 3, 3)] * 6, "test": [(4, 3, 3)] * 3})
    prepare(root, noise, LABELLED, labelled)
    dataset = load_tfds("noise", str(root))
    assert (dataset.name, dataset.max_value, dataset.image_shape) == ("noise", 255, (4, 3, 3))
    assert_same_images(dataset.train_images, noise.images["train"])
    assert_same_images(dataset.test_images, noise.images["test"])
    assert dataset.train_labels is not None and dataset.train_labels.dtype == np.int32
    for image, label in zip(dataset.train_images, dataset.train_labels, strict=True):
        np.testing.assert_array_equal(image, noise.images["train"][label])


def test_unlabelled_tensors_with_a_validation_part(root: Path) -> None:
    noise = Noise({"train": [(4, 3, 1)] * 4, "validation": [(4, 3, 1)] * 2})
    features = {"image": tfds.features.Tensor(shape=(4, 3, 1), dtype=np.uint8)}
    prepare(root, noise, features, lambda index, image: {"image": image})
    dataset = load_tfds("noise", str(root))
    assert dataset.train_labels is None and dataset.test_labels is None
    assert_same_images(dataset.test_images, noise.images["validation"])


def test_cached_equals_decoded_and_follows_the_data(root: Path) -> None:
    prepare(root, Noise({"train": [(4, 3, 3)] * 6, "test": [(4, 3, 3)] * 3}), LABELLED, labelled)
    first, second = load_tfds("noise", str(root)), load_tfds("noise:1.0.0", str(root))
    assert (first.name, first.fingerprint) == (second.name, second.fingerprint)
    np.testing.assert_array_equal(first.train_images, second.train_images)
    newer = Noise({"train": [(4, 3, 3)] * 7, "test": [(4, 3, 3)] * 3})
    prepare(root, newer, LABELLED, labelled, version="1.10.0")
    assert len(load_tfds("noise", str(root)).train_images) == 7
    assert len(load_tfds("noise:1.0.0", str(root)).train_images) == 6


def test_a_damaged_cache_is_decoded_anew(root: Path) -> None:
    noise = Noise({"train": [(4, 3, 3)] * 6, "test": [(4, 3, 3)] * 3})
    prepare(root, noise, LABELLED, labelled)
    load_tfds("noise", str(root))
    (path,) = (root.parent / "user").glob("vae_jax/data/*/train_images.npy")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert_same_images(load_tfds("noise", str(root)).train_images, noise.images["train"])


def test_the_folder_is_found_as_tfds_finds_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(root, Noise({"train": [(4, 3, 3)] * 2, "test": [(4, 3, 3)]}), LABELLED, labelled)
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert len(load_tfds("noise", None).train_images) == 2
    monkeypatch.delenv("TFDS_DATA_DIR")
    (root.parent / "home").mkdir()
    root.rename(root.parent / "home" / "tensorflow_datasets")
    assert len(load_tfds("noise", "").train_images) == 2


@pytest.mark.long
def test_the_second_start_imports_no_tfds(root: Path) -> None:
    prepare(root, Noise({"train": [(4, 3, 3)] * 2, "test": [(4, 3, 3)]}), LABELLED, labelled)
    script = (
        "import sys; from vae_jax.data.tfds import load_tfds; load_tfds('noise', sys.argv[1]);"
        "print(*sorted({'tensorflow', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(root)]
    imported = [
        subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert imported == ["tensorflow_datasets", ""]


def refused(name: str, root: Path) -> str:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        load_tfds(name, str(root))
    assert time.monotonic() - start < 10
    message = str(caught.value)
    assert "\n" not in message and ";" in message
    return message


def test_images_of_several_sizes_are_refused(root: Path) -> None:
    features = {"image": pixels((None, None, 3))}
    noise = Noise({"train": [(4, 3, 3), (5, 3, 3)], "test": [(4, 3, 3)]})
    prepare(root, noise, features, lambda index, image: {"image": png(image)})
    assert "differ in size" in refused("noise", root)


def test_a_test_part_of_another_size_is_refused(root: Path) -> None:
    features = {"image": pixels((None, None, 3))}
    noise = Noise({"train": [(4, 3, 3)], "test": [(5, 3, 3)]})
    prepare(root, noise, features, lambda index, image: {"image": png(image)})
    assert "is 5x3x3, but the first one 4x3x3" in refused("noise", root)


def test_data_without_a_test_part_is_refused_with_the_parts_there_are(root: Path) -> None:
    prepare(root, Noise({"train": [(4, 3, 3)], "extra": [(4, 3, 3)]}), LABELLED, labelled)
    message = refused("noise", root)
    assert "train" in message and "extra" in message


def test_data_without_images_is_refused(root: Path) -> None:
    noise = Noise({"train": [(2,)], "test": [(2,)]})
    features = {"text": tfds.features.Scalar(np.int64)}
    prepare(root, noise, features, lambda index, image: {"text": index})
    assert "'image' but text" in refused("noise", root)


def test_files_that_only_tensorflow_reads_are_refused(root: Path) -> None:
    prepare(root, Noise({"train": [(4, 3, 3)], "test": [(4, 3, 3)]}), LABELLED, labelled)
    (info,) = root.glob("noise/*/dataset_info.json")
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    assert "holds tfrecord files" in refused("noise", root)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_shard_is_refused(root: Path, keep: int) -> None:
    prepare(root, Noise({"train": [(4, 3, 3)] * 6, "test": [(4, 3, 3)]}), LABELLED, labelled)
    (shard,) = root.glob("noise/*/*train*")
    shard.write_bytes(shard.read_bytes()[:keep])
    assert "cannot be read" in refused("noise", root)


@pytest.mark.parametrize(
    ("name", "meant"), [("fashon_mnist", "fashion_mnist"), ("MNIST", "mnist"), ("cifra10", "cifar10")]
)
def test_an_unknown_name_suggests_the_closest(root: Path, name: str, meant: str) -> None:
    message = refused(name, root)
    assert f"did you mean {meant}" in message and str(root) in message


@pytest.mark.parametrize("name", ["", "../mnist", "mnist/", "a b", "mnist:3"])
def test_invalid_names_are_refused(root: Path, name: str) -> None:
    assert "can't be the name" in refused(name, root)


def test_a_builder_that_needs_tensorflow_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(manager, urls):
        raise ExtractError("broken") from ModuleNotFoundError(name="tensorflow")

    monkeypatch.setattr("vae_jax.data.tfds_prepare._network_problem", lambda urls: "")
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", unpack)
    message = refused("cifar10", root)
    assert "cifar10" in message and "pip install tensorflow" in message


def test_a_remote_folder_is_refused() -> None:
    with pytest.raises(UserError, match="not a local folder"):
        load_tfds("mnist", "gs://bucket/tfds")


def test_an_unknown_version_is_refused(root: Path) -> None:
    assert "3.0.1" in refused("mnist:1.0.0", root)


@pytest.mark.manual
@pytest.mark.skipif(not (REAL_DATA / "mnist").is_dir(), reason=f"no prepared MNIST in {REAL_DATA}")
def test_the_true_mnist(root: Path) -> None:
    root.mkdir()
    (root / "mnist").symlink_to(REAL_DATA / "mnist")
    decoded, kept = load_tfds("mnist", str(root)), load_tfds("mnist", str(root))
    assert decoded.train_images.shape == (60000, 28, 28, 1)
    assert decoded.test_images.shape == (10000, 28, 28, 1)
    assert decoded.fingerprint == kept.fingerprint
    # Known since 1998: how often each digit occurs, and the mean pixels.
    assert decoded.train_labels is not None
    assert np.bincount(decoded.train_labels).tolist() == [
        *(5923, 6742, 5958, 6131, 5842),
        *(5421, 5918, 6265, 5851, 5949),
    ]
    assert decoded.test_images.mean() == pytest.approx(33.791224489795916, rel=1e-12)
    # An 8-bit copy in which pixels of value 1 became 0 is also in use, and is darker by 5e-4.
    assert decoded.train_images.mean() == pytest.approx(33.318421449829934, abs=6e-4)
