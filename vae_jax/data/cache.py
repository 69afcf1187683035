"""Decoded arrays kept in the user's cache folder, so that files are decoded once and memory-mapped afterwards.

An entry is a folder with one `.npy` file per array and a digest of their contents. The folder appears by one rename,
and the digest is checked at each reading: a damaged or half-written entry costs time, but never changes a pixel.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from vae_jax.data.dividing import fingerprint
from vae_jax.escaping import one_line
from vae_jax.files import UNFINISHED, whole_folder

_DIGEST = "fingerprint.txt"
_SECONDS_UNTIL_ABANDONED = 24 * 3600.0
_logger = logging.getLogger(__name__)

# None for an array that doesn't exist, such as the labels of unlabelled images.
Arrays = Mapping[str, Any]


def cache_folder() -> Path:
    """The folder that holds the entries: `~/.cache/vae_jax/data` on Linux, below `$XDG_CACHE_HOME` if that is set."""
    return platformdirs.user_cache_path("vae_jax", appauthor=False) / "data"


def files_fingerprint(root: Path, names: Iterable[str], treatment: str) -> str:
    """Digest of files that changes when they are changed: hashing their contents would take as long as decoding.

    Args:
        root: The folder that names are relative to.
        names: The files. Their names, sizes and times of the last change count.
        treatment: What is done to their contents.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{treatment}\n".encode())
    for name in names:
        path = root / name
        status = path.stat() if path.exists() else path.lstat()
        # Names needn't be valid UTF-8.
        digest.update(os.fsencode(f"{name}:{status.st_size}:{status.st_mtime_ns}\n"))
    return digest.hexdigest()[:16]


def load(key: str, names: Sequence[str]) -> tuple[Arrays, str] | None:
    """Reads an entry and checks every byte of it.

    Args:
        key: The name it was saved under.
        names: Names of the arrays.

    Returns:
        The memory-mapped, read-only arrays (None for those that were None) and the `fingerprint` of them all;
        None if there is no such entry or it is damaged.
    """
    folder = cache_folder() / key
    try:
        expected = (folder / _DIGEST).read_text()
        arrays = {name: _load_array(folder / f"{name}.npy") for name in names}
        if fingerprint(*arrays.values()) != expected:
            raise ValueError("its contents changed after they were written")
    except FileNotFoundError:
        return None
    except Exception as error:
        # NumPy raises many kinds of exceptions for a damaged header.
        _logger.warning("decoding again, because the cache in %s is damaged: %s", folder, one_line(error))
        return None
    return arrays, expected


def load_or_make(key: str, names: Sequence[str], make: Callable[[], Arrays]) -> Arrays:
    """Reads an entry; if there is none, makes the arrays and saves them."""
    found = load(key, names)
    if found is not None:
        return found[0]
    arrays = make()
    save(key, arrays)
    return arrays


def save(key: str, arrays: Arrays) -> None:
    """Writes an entry; warns if that fails, since nothing depends on it.

    Args:
        key: A name for it that changes with whatever the arrays are made from.
        arrays: Name and contents of each array; None for one that doesn't exist.
    """
    folder = cache_folder() / key
    try:
        _remove_abandoned(folder.parent)
        with whole_folder(folder) as unfinished:
            for name, array in arrays.items():
                if array is not None:
                    np.save(unfinished / f"{name}.npy", array, allow_pickle=False)
            (unfinished / _DIGEST).write_text(fingerprint(*arrays.values()))
            # A folder can't replace one with files in it, such as a damaged entry.
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        # If another process was faster, its entry is as good.
        if not (folder / _DIGEST).is_file():
            _logger.warning(
                "the data is decoded at every start, because the cache %s can't be written (%s); make room there, or "
                "set XDG_CACHE_HOME to another folder",
                folder.parent,
                error.strerror or one_line(error),
            )


def _load_array(path: Path) -> np.ndarray | None:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)) if path.exists() else None


def _remove_abandoned(place: Path) -> None:
    # A process that was killed while it wrote leaves files as large as a whole data set.
    for folder in place.glob(f"{UNFINISHED}-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _SECONDS_UNTIL_ABANDONED:
                shutil.rmtree(folder)
