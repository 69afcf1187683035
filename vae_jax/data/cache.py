"""Decoded data sets kept on disk, so that a data set is decoded once and memory-mapped ever after.

A data set lies in `<place>/<key>/` as one `.npy` file an array and a `dataset.json` that holds the
digest of the arrays, and one of itself. The folder appears by one rename, when all its files are on the disk; what is
read back is believed only where the digest agrees. So a damaged or half-written cache costs time and
never a wrong pixel.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.dataset import Dataset, fingerprint
from vae_jax.files import read_json
from vae_jax.printable import one_line

_FORMAT = 1
_FACTS = {"format", "name", "max_value", "fingerprint", "arrays"}
_ARRAYS = ("train_images", "test_images", "train_labels", "test_labels")
_HASHED_WHOLE = 64 * 2**20
_HASHED_ENDS = 2**20
_ABANDONED_AFTER = 24 * 3600.0
_logger = logging.getLogger(__name__)


def prepared_fingerprint(prepared: Path) -> str:
    """Digest of a folder of prepared data that changes when the data changes.

    Files of up to 64 MiB count with every byte; larger ones with size, time of the last change and
    both ends, because hashing gigabytes at each start would cost more than it saves.

    Args:
        prepared: Folder with the prepared files (its subfolders don't count).

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in prepared.iterdir() if path.is_file()):
        status = path.stat()
        digest.update(f"{path.name}:{status.st_size}:".encode())
        with path.open("rb") as file:
            if status.st_size <= _HASHED_WHOLE:
                digest.update(file.read())
            else:
                digest.update(f"{status.st_mtime_ns}:".encode())
                digest.update(file.read(_HASHED_ENDS))
                file.seek(-_HASHED_ENDS, os.SEEK_END)
                digest.update(file.read())
    return digest.hexdigest()[:16]


def places(data_dir: Path) -> list[Path]:
    """Folders that may hold the cache, the preferred one first.

    Args:
        data_dir: Folder of the prepared data sets; the cache goes in it where it can be written.

    Returns:
        The folder beside the data and the user's cache folder.
    """
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return [data_dir / ".vae_jax_cache", Path(user_cache).expanduser() / "vae_jax"]


def image_bytes(data_dir: Path, key: str) -> int | None:
    """How much memory the images take that were saved under a key.

    Args:
        data_dir: Folder of the prepared data sets.
        key: What the data set was saved under.

    Returns:
        Bytes; None where there's no data set or its files are damaged.
    """
    for place in places(data_dir):
        with contextlib.suppress(OSError, EOFError, ValueError):
            return sum(_read_array(place / key, name).nbytes for name in ("train_images", "test_images"))
    return None


def load(data_dir: Path, key: str) -> Dataset | None:
    """Finds a data set that was saved under a key, and checks every byte of its arrays.

    Args:
        data_dir: Folder of the prepared data sets.
        key: What the data set was saved under.

    Returns:
        The data set with memory-mapped, read-only arrays; None where there's none or it's damaged.
    """
    for place in places(data_dir):
        folder = place / key
        try:
            return _read(folder)
        except FileNotFoundError:
            continue
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            _logger.warning("decoding again, because the cache in %s is damaged: %s", folder, one_line(error))
    return None


def save(data_dir: Path, key: str, dataset: Dataset) -> None:
    """Writes a data set where `load` finds it; where nothing can be written, a warning says so.

    Args:
        data_dir: Folder of the prepared data sets.
        key: What `load` will be asked for.
        dataset: What to keep.
    """
    problems = []
    for place in places(data_dir):
        try:
            _write(place, key, dataset)
        except OSError as error:
            problems.append(f"{place} ({error.strerror or error})")
        else:
            return
    _logger.warning(
        "%s is decoded at every start, because no cache can be written: %s; make one of them writable",
        dataset.name,
        ", ".join(problems),
    )


def _read(folder: Path) -> Dataset:
    facts = read_json(folder / "dataset.json")
    if set(facts) != _FACTS:
        raise ValueError("dataset.json changed after it was written")
    if facts["format"] != _FORMAT:
        raise ValueError(f"format {facts['format']!r} where {_FORMAT} is expected")
    kept = facts["arrays"]
    arrays: dict[str, Any] = {name: _read_array(folder, name) if name in kept else None for name in _ARRAYS}
    if fingerprint(*arrays.values()) != facts["fingerprint"]:
        raise ValueError("its contents changed after they were written")
    _check_kinds(arrays)
    if type(facts["name"]) is not str or type(facts["max_value"]) is not int or not 1 <= facts["max_value"] <= 255:
        raise ValueError("it doesn't say what its images are")
    return Dataset(facts["name"], **arrays, max_value=facts["max_value"], fingerprint=facts["fingerprint"])


def _check_kinds(arrays: dict[str, Any]) -> None:
    """Refuses what no data set is made of, whoever wrote it."""
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if images is None or images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"its {part}_images are no images")
        if labels is not None and (labels.dtype != np.int32 or labels.ndim != 1):
            raise ValueError(f"its {part}_labels are no labels")


def _read_array(folder: Path, name: str) -> np.ndarray:
    try:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
    except FileNotFoundError as error:
        # Only an absent cache may pass in silence: one that lacks a file is damaged.
        raise ValueError(f"{name}.npy is missing") from error
    except Exception as error:
        # NumPy reads the header as Python, and raises whatever comes to hand where that is damaged.
        raise ValueError(f"{name}.npy can't be read: {error}") from error


def _write(place: Path, key: str, dataset: Dataset) -> None:
    place.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(place)
    with _temporary_folder(place) as temporary:
        arrays = {name: getattr(dataset, name) for name in _ARRAYS if getattr(dataset, name) is not None}
        for name, array in arrays.items():
            with (temporary / f"{name}.npy").open("xb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        facts = {
            "format": _FORMAT,
            "name": dataset.name,
            "max_value": dataset.max_value,
            "fingerprint": fingerprint(*(getattr(dataset, name) for name in _ARRAYS)),
            "arrays": list(arrays),
        }
        with (temporary / "dataset.json").open("x", encoding="utf-8") as file:
            json.dump(facts, file)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(temporary)
        _put_in_place(temporary, place / key)
    _sync_folder(place)


def _put_in_place(temporary: Path, folder: Path) -> None:
    # A folder cannot be renamed onto a full one, so what is there (it's damaged) steps aside first.
    with _temporary_folder(folder.parent) as aside, contextlib.suppress(FileNotFoundError):
        folder.rename(aside / "damaged")
    try:
        temporary.rename(folder)
    except OSError:
        # Another process was faster: its copy is as good as this one.
        if not (folder / "dataset.json").is_file():
            raise


@contextlib.contextmanager
def _temporary_folder(place: Path) -> Iterator[Path]:
    folder = place / f".incomplete-{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(place: Path) -> None:
    # A process that was killed while it wrote leaves as much as a whole data set behind.
    for folder in place.glob(".incomplete-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER:
                shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
