"""The MNIST family is prepared without TensorFlow, and plain TFDS reads what was prepared."""

import gzip
import hashlib
import struct
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
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


@pytest.fixture
def originals() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = []
    for count in (NUM_TRAIN, NUM_TEST):
        arrays += [rng.integers(0, 256, (count, 28, 28), np.uint8), rng.integers(0, 10, count, np.uint8)]
    return dict(zip(FILES, arrays, strict=True))


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, originals: dict[str, np.ndarray]) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    for name, array in originals.items():
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


def point_tfds_at(monkeypatch: pytest.MonkeyPatch, name: str, url: str, folder: Path) -> None:
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
def test_downloaded_prepared_and_read_by_plain_tfds(served, originals, name, tmp_path, monkeypatch) -> None:
    folder, url = served
    point_tfds_at(monkeypatch, name, url, folder)
    root = tmp_path / "tfds"
    dataset = load_tfds(name, str(root))
    assert dataset.name == name and dataset.max_value == 255
    assert dataset.train_images.shape == (NUM_TRAIN, 28, 28, 1)
    assert dataset.train_labels is not None and dataset.test_labels is not None
    train = by_content(dataset.train_images, dataset.train_labels)
    assert train == by_content(originals[FILES[0]], originals[FILES[1]])
    test = by_content(dataset.test_images, dataset.test_labels)
    assert test == by_content(originals[FILES[2]], originals[FILES[3]])

    plain: Any = tfds.builder(name, data_dir=root)
    assert type(plain) is not tfds_prepare.builder_class(name)
    source = plain.as_data_source("train")
    for index, example in enumerate(source):
        np.testing.assert_array_equal(example["image"], dataset.train_images[index], strict=True)
        assert example["label"] == dataset.train_labels[index]
    assert plain.info.splits["test"].num_examples == NUM_TEST
    assert "tensorflow" not in sys.modules
    original = getattr(mnist, tfds_prepare.builder_class(name).__name__)
    assert str(plain.version) == str(original.VERSION)
    assert original.__module__ in (root / name / str(plain.version) / "dataset_info.json").read_text()


def test_a_tampered_download_is_refused(served, tmp_path, monkeypatch) -> None:
    folder, url = served
    point_tfds_at(monkeypatch, "mnist", url, folder)
    path = folder / FILES[0]
    path.write_bytes(path.read_bytes()[:-9] + b"\0" + path.read_bytes()[-8:])
    with pytest.raises(UserError, match=r"wrong checksum.*run the same command again") as caught:
        load_tfds("mnist", str(tmp_path / "tfds"))
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "tfds").glob("mnist/*"))


def test_an_address_without_checksum_is_refused(served, tmp_path, monkeypatch) -> None:
    folder, url = served
    point_tfds_at(monkeypatch, "mnist", url, folder)
    monkeypatch.setattr(tfds_prepare.builder_class("mnist"), "url_infos", {})
    with pytest.raises(UserError, match="checksum"):
        load_tfds("mnist", str(tmp_path / "tfds"))


def test_interrupted_preparation_leaves_nothing_that_looks_prepared(served, tmp_path, monkeypatch) -> None:
    folder, url = served
    point_tfds_at(monkeypatch, "mnist", url, folder)

    def interrupt(image: np.ndarray) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(tfds_prepare, "encode_png", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load_tfds("mnist", str(tmp_path / "tfds"))
    assert not list((tmp_path / "tfds").glob("mnist/*"))
    # A killed process cannot tidy up: what it leaves is passed over.
    left = tmp_path / "tfds" / "mnist" / "incomplete.AB12CD_3.0.1"
    left.mkdir(parents=True)
    (left / "dataset_info.json").write_text("{")
    assert len(load_tfds("mnist", str(tmp_path / "tfds")).train_images) == NUM_TRAIN


def test_files_put_in_the_manual_folder_need_no_network(served, tmp_path, monkeypatch) -> None:
    folder, _ = served
    point_tfds_at(monkeypatch, "mnist", "http://127.0.0.1:9/", folder)
    manual = tmp_path / "tfds" / "downloads" / "manual"
    manual.parent.mkdir(parents=True)
    folder.rename(manual)
    assert len(load_tfds("mnist", str(tmp_path / "tfds")).test_images) == NUM_TEST


def test_without_a_network_it_fails_fast(served, tmp_path, monkeypatch) -> None:
    folder, _ = served
    point_tfds_at(monkeypatch, "mnist", "http://127.0.0.1:9/", folder)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9.*--config\.data\.dir.*TFDS_DATA_DIR") as caught:
        load_tfds("mnist", str(tmp_path / "tfds"))
    assert time.monotonic() - start < 10
    assert str(tmp_path / "tfds") in str(caught.value) and "\n" not in str(caught.value)


def test_a_host_that_never_answers_is_given_up(served, tmp_path, monkeypatch) -> None:
    folder, _ = served
    point_tfds_at(monkeypatch, "mnist", "http://127.0.0.1:9/", folder)
    monkeypatch.setattr("vae_jax.data.tfds_prepare._PROBE_SECONDS", 0.1)
    done = threading.Event()

    def answer_too_late(*args, **kwargs) -> None:
        done.wait()
        raise requests.ConnectTimeout

    monkeypatch.setattr(requests, "head", answer_too_late)
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9: no answer in 0\.1 s"):
        load_tfds("mnist", str(tmp_path / "tfds"))
    done.set()


def test_a_host_with_a_server_error_counts_as_unreachable(served, tmp_path, monkeypatch) -> None:
    folder, url = served
    point_tfds_at(monkeypatch, "mnist", url, folder)
    monkeypatch.setattr(QuietHandler, "do_HEAD", lambda handler: handler.send_error(503))
    with pytest.raises(UserError, match="HTTP status 503"):
        load_tfds("mnist", str(tmp_path / "tfds"))


def test_files_of_another_size_are_refused(served, tmp_path, monkeypatch) -> None:
    folder, url = served
    (folder / FILES[1]).write_bytes(idx(np.zeros(NUM_TRAIN - 1, np.uint8)))
    point_tfds_at(monkeypatch, "mnist", url, folder)
    with pytest.raises(UserError, match="12 images and labels"):
        load_tfds("mnist", str(tmp_path / "tfds"))


GOOD = struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(range(6))


def test_idx_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(GOOD))
    np.testing.assert_array_equal(tfds_prepare.read_idx(path), np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (GOOD, "gzip"),
        (gzip.compress(GOOD, mtime=0)[:-10], "end-of-stream"),
        (gzip.compress(b"", mtime=0), "nothing"),
        (gzip.compress(b"\0\0\x0d" + GOOD[3:], mtime=0), "000008"),
        (gzip.compress(GOOD[:9], mtime=0), "buffer is smaller"),
        (gzip.compress(GOOD[:-1], mtime=0), "array of size 5"),
        (gzip.compress(GOOD + b"\0", mtime=0), "array of size 7"),
    ],
)
def test_a_bad_idx_file_is_named(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=cause) as caught:
        tfds_prepare.read_idx(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
