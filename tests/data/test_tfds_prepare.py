"""The MNIST family is prepared without TensorFlow, and plain TFDS reads what was prepared."""

import gzip
import hashlib
import struct
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.utils import Size
from tensorflow_datasets.image_classification import mnist

from vae_jax.data import tfds_prepare
from vae_jax.data.tfds import load_tfds
from vae_jax.errors import UserError

NUM_TRAIN, NUM_TEST = 12, 5
FILES = [f"{split}-{content}-ubyte.gz" for split in ("train", "t10k") for content in ("images-idx3", "labels-idx1")]


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


RNG = np.random.default_rng(0)
ORIGINALS = [
    array
    for count in (NUM_TRAIN, NUM_TEST)
    for array in (RNG.integers(0, 256, (count, 28, 28), np.uint8), RNG.integers(0, 10, count, np.uint8))
]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    for name, array in zip(FILES, ORIGINALS, strict=True):
        (folder / name).write_bytes(idx(array))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


NO_SERVER = "http://127.0.0.1:9/"


def point_tfds_at(monkeypatch: pytest.MonkeyPatch, url: str, folder: Path, name: str = "mnist") -> None:
    """Makes a small data set of the family the true one: address, number of images and checksums."""
    builder_class = tfds_prepare.builder_class(name)
    infos = {
        url + file: UrlInfo(
            size=Size((folder / file).stat().st_size),
            checksum=hashlib.sha256((folder / file).read_bytes()).hexdigest(),
            filename=file,
        )
        for file in FILES
    }
    monkeypatch.setattr(builder_class, "URL", url)
    monkeypatch.setattr(builder_class, "url_infos", infos)
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", NUM_TRAIN)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", NUM_TEST)


def by_content(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    # TFDS shuffles, so what is compared is which images there are and the label of each.
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


@pytest.mark.parametrize("name", sorted(tfds_prepare.MNIST_FAMILY))
def test_downloaded_prepared_and_read_by_plain_tfds(served, name: str, tmp_path: Path, monkeypatch) -> None:
    folder, url = served
    point_tfds_at(monkeypatch, url, folder, name)
    root = tmp_path / "tfds"
    dataset = load_tfds(name, str(root))
    assert dataset.name == name and dataset.max_value == 255
    assert dataset.train_labels is not None and dataset.test_labels is not None
    train = by_content(dataset.train_images[..., 0], dataset.train_labels)
    assert train == by_content(ORIGINALS[0], ORIGINALS[1])
    test = by_content(dataset.test_images[..., 0], dataset.test_labels)
    assert test == by_content(ORIGINALS[2], ORIGINALS[3])

    plain: Any = tfds.builder(name, data_dir=root)
    assert type(plain) is not tfds_prepare.builder_class(name)
    for index, example in enumerate(plain.as_data_source("train")):
        np.testing.assert_array_equal(example["image"], dataset.train_images[index], strict=True)
        assert example["label"] == dataset.train_labels[index]
    assert plain.info.splits["test"].num_examples == NUM_TEST
    assert "tensorflow" not in sys.modules


def refused(tmp_path: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_tfds("mnist", str(tmp_path / "tfds"))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "tfds").glob("mnist/*"))


def test_a_tampered_download_is_refused(served, tmp_path: Path, monkeypatch) -> None:
    folder, url = served
    point_tfds_at(monkeypatch, url, folder)
    path = folder / FILES[0]
    path.write_bytes(path.read_bytes()[:-9] + b"\0" + path.read_bytes()[-8:])
    refused(tmp_path, "wrong checksum.*run the same command again")
    monkeypatch.setattr(tfds_prepare.builder_class("mnist"), "url_infos", {})
    refused(tmp_path, "checksum")


def test_files_put_in_the_manual_folder_need_no_network(served, tmp_path: Path, monkeypatch) -> None:
    folder, _ = served
    point_tfds_at(monkeypatch, NO_SERVER, folder)
    refused(tmp_path, r"127\.0\.0\.1:9.*--config\.data\.dir.*TFDS_DATA_DIR")
    manual = tmp_path / "tfds" / "downloads" / "manual"
    manual.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(manual)
    assert len(load_tfds("mnist", str(tmp_path / "tfds")).test_images) == NUM_TEST


GOOD = struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(range(6))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (GOOD, "gzip"),
        (gzip.compress(b"", mtime=0), "nothing"),
        (gzip.compress(b"\0\0\x0d" + GOOD[3:], mtime=0), "000008"),
        (gzip.compress(GOOD + b"\0", mtime=0), "array of size 7"),
    ],
)
def test_a_bad_idx_file_is_named(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=cause) as caught:
        tfds_prepare.read_idx(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
