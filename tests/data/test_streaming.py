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
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
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


def random_images(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 5, 4, 3), np.uint8))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 20 training and 10 test images in two classes."""
    for index, image in enumerate(random_images(30)):
        folder = tmp_path / "pictures" / ("train" if index < 20 else "test") / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index:02d}.png")
    return tmp_path / "pictures"


def folder_at(pictures: Path, binarization: str, resident_mb: int, validation: float = 0.1) -> Dataset:
    dataset = load_folder(str(pictures), 0.2, 0, Sizing(), resident_mb)
    return dataclasses.replace(dataset, binarization=binarization, validation_fraction=validation)


def streamed(data: Dataset, first: int, last: int, workers: int, columns: slice = slice(None), seeds=SEEDS) -> Iterator:
    training = data.training
    assert isinstance(training.images, StreamedImages)
    return streamed_batches(
        BatchReader(training.images, training.labels, seeds, BATCH, columns), first, last, workers, 3
    )


def assert_batches_of(data: Dataset, batches: Iterator, first: int, last: int, columns: slice = slice(None)) -> None:
    """What comes out is what indexing the images in memory gives."""
    images, labels = data.training.images, data.training.labels
    assert isinstance(images, np.ndarray)
    count = 0
    for step, (pixels, classes) in zip(range(first, last), batches, strict=True):
        for seed, replica, own_classes in zip(SEEDS, pixels, classes, strict=True):
            rows = BatchOrder((seed,), BATCH, len(images)).indices(np.array([step]))[0][columns]
            np.testing.assert_array_equal(replica, images[rows], strict=True)
            np.testing.assert_array_equal(own_classes, labels[rows])
        count += 1
    assert count == last - first


@pytest.mark.long
@pytest.mark.parametrize("binarization", ["none", "dynamic", "fixed", "threshold"])
def test_threads_give_the_batches_of_the_images_in_memory(pictures: Path, binarization: str) -> None:
    resident, files = (folder_at(pictures, binarization, mb) for mb in (1, 0))
    assert_batches_of(resident, streamed(files, 0, 8, workers=0), 0, 8)
    assert_batches_of(resident, streamed(files, 4, 6, 0, slice(2, 5)), 4, 6, slice(2, 5))


@pytest.mark.long
def test_two_workers_give_the_batches_of_the_images_in_memory(pictures: Path) -> None:
    resident, files = (folder_at(pictures, "fixed", mb) for mb in (1, 0))
    before = shared_arrays()
    batches = streamed(files, 5, 12, workers=2, columns=slice(1, 6))
    assert_batches_of(resident, batches, 5, 12, slice(1, 6))
    assert not multiprocessing.active_children()
    assert shared_arrays() == before


def test_no_steps_give_no_batches(pictures: Path) -> None:
    assert list(streamed(folder_at(pictures, "none", 0), 3, 3, workers=0)) == []


def test_batches_without_labels(pictures: Path) -> None:
    images = folder_at(pictures, "none", 0).training.images
    assert isinstance(images, StreamedImages)
    ((pixels, labels),) = streamed_batches(BatchReader(images, None, (0,), 4, slice(None)), 0, 1, 0, 1)
    assert pixels.shape == (1, 4, 5, 4, 3) and labels is None


def test_an_image_of_several_replicas_is_decoded_once() -> None:
    asked = []

    class Reader:
        image_shape = (1, 1, 1)

        def read(self, indices: np.ndarray) -> np.ndarray:
            asked.extend(indices.tolist())
            return indices.astype(np.uint8).reshape(-1, 1, 1, 1)

    images = StreamedImages(Reader(), np.arange(10, 16))
    ((pixels, _),) = streamed_batches(BatchReader(images, None, (0, 1, 2), 6, slice(None)), 0, 1, 0, 1)
    assert sorted(asked) == list(range(10, 16))
    assert all(sorted(replica.ravel().tolist()) == list(range(10, 16)) for replica in pixels)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The folder of a TFDS data set of 12 training and 5 test images with labels."""
    from tensorflow_datasets.core import registered

    images = random_images(17)
    with registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            name = "noise"
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(5, 4, 3)),
                    "label": tfds.features.ClassLabel(num_classes=9),
                }
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples(0, 12), "test": self._generate_examples(12, 17)}

            def _generate_examples(self, start, stop):
                for index in range(start, stop):
                    yield index, {"image": Image.fromarray(images[index]), "label": index % 9}

    Builder(data_dir=tmp_path / "tfds").download_and_prepare(file_format="array_record")
    return tmp_path / "tfds"


def test_a_prepared_data_set_gives_the_batches_of_its_images_in_memory(prepared: Path, monkeypatch) -> None:
    streamed_set = load_tfds("noise", str(prepared), resident_mb=0)
    resident_set = load_tfds("noise", str(prepared), resident_mb=1)
    assert isinstance(streamed_set.train_images, StreamedImages)
    assert (streamed_set.name, streamed_set.image_shape) == (resident_set.name, resident_set.image_shape)
    np.testing.assert_array_equal(streamed_set.train_labels, resident_set.train_labels)
    np.testing.assert_array_equal(streamed_set.test_labels, resident_set.test_labels)
    for binarization in ("none", "fixed"):
        settings = {"binarization": binarization, "validation_fraction": 0.1, "seed": 3}
        resident, files = (dataclasses.replace(dataset, **settings) for dataset in (resident_set, streamed_set))
        assert_batches_of(resident, streamed(files, 2, 5, workers=0), 2, 5)
        np.testing.assert_array_equal(files.for_evaluation("test").images, resident.for_evaluation("test").images)
    # The labels were kept, and what is kept is enough for images in memory too, but too large for nothing.
    monkeypatch.setattr("vae_jax.data.tfds.PreparedReader.read_labels", None)
    again = load_tfds("noise", str(prepared), resident_mb=0)
    assert isinstance(again.train_images, StreamedImages) and again.fingerprint == streamed_set.fingerprint
    np.testing.assert_array_equal(again.train_labels, resident_set.train_labels)


def test_a_prepared_data_set_is_cut_to_size(prepared: Path) -> None:
    small = load_tfds("noise", str(prepared), sizing=Sizing(3), resident_mb=0)
    assert small.image_shape == (3, 3, 3)
    kept = [load_tfds("noise", str(prepared), sizing=Sizing(size)) for size in (3, 0, 3)]
    assert [dataset.image_shape for dataset in kept] == [(3, 3, 3), (5, 4, 3), (3, 3, 3)]
    np.testing.assert_array_equal(small.train_images, kept[2].train_images)


@pytest.mark.long
def test_a_worker_reads_prepared_data_without_jax(prepared: Path) -> None:
    """One worker, which would raise if JAX had a device in use there."""
    dataset = load_tfds("noise", str(prepared), resident_mb=0)
    images = dataset.train_images
    assert isinstance(images, StreamedImages)
    binary = binarized_once(images[:], 255, 3, 2)
    reader = BatchReader(images.changed(binarized_without_jax), dataset.train_labels, (4,), 5, slice(None))
    batches = streamed_batches(reader, 1, 3, 1, 2)
    for step, (pixels, labels) in zip((1, 2), batches, strict=True):
        rows = BatchOrder((4,), 5, 12).indices(np.array([step]))[0]
        np.testing.assert_array_equal(pixels[0], binary[rows])
        assert labels is not None and dataset.train_labels is not None
        np.testing.assert_array_equal(labels[0], dataset.train_labels[rows])


def shared_arrays() -> int:
    """Arrays in shared memory: what is left of them at the end of a program is told on stderr."""
    return sum(isinstance(found, shared_memory.SharedMemory) for found in gc.get_objects())


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_ends_the_stream_with_its_name(pictures: Path, workers: int) -> None:
    data = folder_at(pictures, "none", 0, validation=0.0)
    (pictures / "train" / "b" / "05.png").write_bytes(b"")
    before = shared_arrays()
    with pytest.raises(UserError, match=r"05\.png' can't be read.*repair or remove it") as caught:
        for _ in streamed(data, 0, 6, workers):
            pass
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()
    assert shared_arrays() == before


def wait_until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return true()


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
            assert wait_until(lambda: not is_running(worker))
        finally:
            parent.kill()
    assert "Traceback" not in errors
    if ended == "Ctrl-C":
        assert (output, errors) == ("interrupted\n", "")
    if ended == "worker killed":
        assert "exit code -9" in output and "--config.data.workers" in output and output.count("\n") == 1
