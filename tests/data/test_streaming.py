"""Streamed batches are those of the same images in memory, bit for bit, and the workers come and go quietly."""

import dataclasses
import functools
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest
from data.prepared import prepare
from data.worker_probe import binarized_without_jax
from PIL import Image

from vae_jax.data.batches import BatchReader, streamed_batches
from vae_jax.data.binarization import binarized_once
from vae_jax.data.dataset import Dataset
from vae_jax.data.decoding import Sizing
from vae_jax.data.folder import load_folder
from vae_jax.data.streamed import StreamedImages
from vae_jax.data.tfds import load_tfds
from vae_jax.errors import UserError
from vae_jax.training import BatchOrder

REPOSITORY = Path(__file__).parents[2]
BATCH, SEEDS = 6, (0, 7)


@pytest.fixture(autouse=True)
def own_user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 20 training and 10 test images in two classes."""
    for index, image in enumerate(np.random.default_rng(0).integers(0, 256, (30, 5, 4, 3), np.uint8)):
        folder = tmp_path / "pictures" / ("train" if index < 20 else "test") / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    return tmp_path / "pictures"


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The folder of a TFDS data set of 12 training and 5 test images with labels."""
    prepare(tmp_path / "tfds", {"train": [(5, 4, 3)] * 12, "test": [(5, 4, 3)] * 5})
    return tmp_path / "tfds"


def of_folder(pictures: Path, binarization: str, resident_mb: int, validation: float = 0.1) -> Dataset:
    dataset = load_folder(str(pictures), 0.2, 0, Sizing(), resident_mb)
    return dataclasses.replace(dataset, binarization=binarization, validation_fraction=validation)


def streamed(data: Dataset, first: int, last: int, workers: int, columns: slice = slice(None)) -> Iterator:
    training = data.training
    assert isinstance(training.images, StreamedImages)
    reader = BatchReader(training.images, training.labels, SEEDS, BATCH, columns)
    return streamed_batches(reader, first, last, workers, 3)


def assert_batches_of(data: Dataset, batches: Iterator, first: int, last: int, columns: slice = slice(None)) -> None:
    """What comes out is what indexing the images in memory gives."""
    images, labels = data.training.images, data.training.labels
    assert isinstance(images, np.ndarray)
    for step, (pixels, classes) in zip(range(first, last), batches, strict=True):
        for seed, replica, own_classes in zip(SEEDS, pixels, classes, strict=True):
            rows = BatchOrder((seed,), BATCH, len(images)).indices(np.array([step]))[0][columns]
            np.testing.assert_array_equal(replica, images[rows], strict=True)
            np.testing.assert_array_equal(own_classes, labels[rows])


def shared_arrays() -> int:
    """Arrays in shared memory: what is left of them at the end of a program is told on stderr."""
    return sum(isinstance(found, shared_memory.SharedMemory) for found in gc.get_objects())


@pytest.mark.parametrize("binarization", ["none", "fixed"])
def test_threads_give_the_batches_of_the_images_in_memory(pictures: Path, binarization: str) -> None:
    resident, files = (of_folder(pictures, binarization, mb) for mb in (1, 0))
    assert_batches_of(resident, streamed(files, 0, 8, workers=0), 0, 8)
    assert_batches_of(resident, streamed(files, 4, 6, 0, slice(2, 5)), 4, 6, slice(2, 5))
    assert list(streamed(files, 3, 3, workers=0)) == []


def test_an_image_of_several_replicas_is_decoded_once() -> None:
    asked = []

    class Reader:
        image_shape = (1, 1, 1)

        def read(self, indices: np.ndarray) -> np.ndarray:
            asked.extend(indices.tolist())
            return indices.astype(np.uint8).reshape(-1, 1, 1, 1)

    images = StreamedImages(Reader(), np.arange(10, 16))
    ((pixels, labels),) = streamed_batches(BatchReader(images, None, (0, 1, 2), 6, slice(None)), 0, 1, 0, 1)
    assert labels is None and sorted(asked) == list(range(10, 16))
    assert all(sorted(replica.ravel().tolist()) == list(range(10, 16)) for replica in pixels)


@pytest.mark.parametrize("size", [0, 3])
def test_a_prepared_data_set_gives_the_batches_of_its_images_in_memory(prepared: Path, monkeypatch, size: int) -> None:
    settings = {"binarization": "fixed", "validation_fraction": 0.1, "seed": 3}
    files, resident = (load_tfds("noise", str(prepared), sizing=Sizing(size), resident_mb=mb) for mb in (0, 1))
    assert files.image_shape == resident.image_shape == ((3, 3, 3) if size else (5, 4, 3))
    assert_batches_of(
        dataclasses.replace(resident, **settings), streamed(dataclasses.replace(files, **settings), 2, 5, 0), 2, 5
    )
    np.testing.assert_array_equal(files.test_images, resident.test_images)
    np.testing.assert_array_equal(files.test_labels, resident.test_labels)
    # The labels were kept, and what is kept is enough for images in memory too, but too large for nothing.
    monkeypatch.setattr("vae_jax.data.tfds.PreparedReader.read_labels", None)
    again = load_tfds("noise", str(prepared), sizing=Sizing(size), resident_mb=0)
    assert isinstance(again.train_images, StreamedImages) and again.fingerprint == files.fingerprint
    np.testing.assert_array_equal(again.train_labels, resident.train_labels)


@pytest.mark.long
def test_workers_give_the_batches_of_the_images_in_memory_without_jax(prepared: Path) -> None:
    """They would raise if JAX had a device in use there."""
    dataset = load_tfds("noise", str(prepared), resident_mb=0)
    images, labels, before = dataset.train_images, dataset.train_labels, shared_arrays()
    assert isinstance(images, StreamedImages) and labels is not None
    binary, columns = binarized_once(images[:], 255, 3, 2), slice(1, 4)
    changed = images.changed(binarized_without_jax)
    batches = streamed_batches(BatchReader(changed, labels, SEEDS, 5, columns), 1, 6, 2, 2)
    for step, (pixels, classes) in zip(range(1, 6), batches, strict=True):
        for seed, replica, own_classes in zip(SEEDS, pixels, classes, strict=True):
            rows = BatchOrder((seed,), 5, 12).indices(np.array([step]))[0][columns]
            np.testing.assert_array_equal(replica, binary[rows])
            np.testing.assert_array_equal(own_classes, labels[rows])
    assert not multiprocessing.active_children() and shared_arrays() == before


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_damaged_file_ends_the_stream_with_its_name(pictures: Path, workers: int) -> None:
    data = of_folder(pictures, "none", 0, validation=0.0)
    (pictures / "train" / "b" / "05.png").write_bytes(b"")
    before = shared_arrays()
    with pytest.raises(UserError, match=r"05\.png' can't be read.*repair or remove it"):
        list(streamed(data, 0, 6, workers))
    assert not multiprocessing.active_children() and shared_arrays() == before


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


SCRIPT = """
import multiprocessing, signal, sys, time
from vae_jax.data.batches import BatchReader, streamed_batches
from vae_jax.data.decoding import Sizing
from vae_jax.data.folder import load_folder
from vae_jax.errors import UserError

if __name__ == "__main__":
    # A shell that starts something in the background lets it ignore this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    images = load_folder(sys.argv[1], 0.2, 0, Sizing(), 0).train_images
    batches = streamed_batches(BatchReader(images, None, (0,), 5, slice(None)), 0, 10**6, 1, 1)
    next(batches)
    # A worker that is killed while it makes shared memory, before Python has noted that, leaves it there.
    time.sleep(0.5)
    try:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        # An interrupt that arrives inside a __del__ would be ignored by Python.
        time.sleep(0 if sys.argv[2] == "worker killed" else 60)
        for _ in batches:
            pass
    except KeyboardInterrupt:
        print("interrupted")
    except UserError as error:
        print(error)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the worker is looked for in /proc")
@pytest.mark.parametrize("ended", ["Ctrl-C", "parent killed", "worker killed"])
def test_no_process_outlives_another(pictures: Path, tmp_path: Path, ended: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = functools.partial(subprocess.Popen, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    command = [sys.executable, str(script), str(pictures), ended]
    with run(command, env=environment, start_new_session=True) as parent:
        try:
            assert parent.stdout is not None
            worker = int(parent.stdout.readline())
            assert is_running(worker)
            if ended == "Ctrl-C":
                # As a terminal does it: to the whole group.
                os.killpg(parent.pid, signal.SIGINT)
            else:
                os.kill(worker if ended == "worker killed" else parent.pid, signal.SIGKILL)
            output, errors = parent.communicate(timeout=150)
            end = time.monotonic() + 20
            while is_running(worker):
                assert time.monotonic() < end
                time.sleep(0.05)
        finally:
            parent.kill()
    assert "Traceback" not in errors
    if ended == "Ctrl-C":
        assert (output, errors) == ("interrupted\n", "")
    if ended == "worker killed":
        assert "exit code -9" in output and "--config.data.workers" in output and output.count("\n") == 1
