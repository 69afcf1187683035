"""Files that are there whole or not at all."""

import contextlib
import errno
import json
import os
import pathlib
import stat
import tempfile
from collections.abc import Iterator
from typing import Any

from vae_jax.errors import UserError
from vae_jax.memory import in_words

_MOST_JSON = 64 * 2**20

UNFINISHED = ".unfinished"


@contextlib.contextmanager
def replacing(path: pathlib.Path, mend: str = "choose another place") -> Iterator[pathlib.Path]:
    """A path to write to, whose file takes the place of `path` once all is written.

    Args:
        path: The file in the end; folders on the way to it are made.
        mend: What the user can do where it can't be written.

    Raises:
        UserError: If the file system doesn't take it.
    """
    # With the suffix of the file, for writers that go by it.
    unfinished = path.with_name(f".{path.stem}{UNFINISHED}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # What lies there could be a link, through which a file somewhere else would be written.
        unfinished.unlink(missing_ok=True)
        yield unfinished
        # First the content, then the name: without that a machine that loses power may keep the name alone.
        sync(unfinished)
        os.replace(unfinished, path)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror or error}); {mend}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def is_leftover(path: pathlib.Path) -> bool:
    """Whether this is what `replacing` leaves where a process was killed; the next one overwrites it."""
    return path.name.startswith(".") and UNFINISHED in path.name


def sync(path: pathlib.Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bytes(path: pathlib.Path) -> bytes:
    """What a file holds.

    Raises:
        OSError: If it can't be read, or is not a regular file: reading a pipe or a device may never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def read_json(path: pathlib.Path) -> Any:
    """What a JSON file says.

    Raises:
        OSError: As `read_bytes`.
        ValueError: If it isn't JSON, or is larger or deeper than anything that this package writes.
    """
    content = read_bytes(path)
    if len(content) > _MOST_JSON:
        raise ValueError(f"it is larger than {in_words(_MOST_JSON)}")
    return parse_json(content)


def parse_json(content: bytes | str) -> Any:
    """What JSON says.

    Raises:
        ValueError: If it isn't JSON, or is nested deeper than anything that this package writes.
    """
    try:
        # Told that it is UTF-8, or the parser would guess other encodings from zeros.
        return json.loads(content.decode() if isinstance(content, bytes) else content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error


def write_json(path: pathlib.Path, content: Any, mend: str = "choose another place") -> None:
    """Writes JSON that every parser can read, without NaN and infinity.

    Raises:
        UserError: If the file system doesn't take it.
    """
    with replacing(path, mend) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def check_output(path: pathlib.Path, *suffixes: str) -> None:
    """Finds out before long work whether its result can be kept.

    Args:
        path: The file, or a new folder.
        suffixes: How the file's name may end: what is written goes by that. None for a folder.

    Raises:
        UserError: If `path` ends otherwise, is in use, or lies where nothing can be written.
    """
    if suffixes and path.suffix not in suffixes:
        raise UserError(f"--output is '{path}' but must end in {' or '.join(suffixes)}")
    if suffixes and path.is_dir():
        raise UserError(f"'{path}' is a folder; name a file with --output")
    if not suffixes and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"'{path}' has files in it, or is a file; name a new folder with --output")
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"nothing can be written to {folder}; name another place with --output")


@contextlib.contextmanager
def new_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to fill, which becomes `path` once all is in it.

    Args:
        path: The folder in the end; folders on the way to it are made.

    Raises:
        UserError: If something else is there, or the file system refuses.
    """
    check_output(path)
    try:
        with whole_folder(path.resolve()) as unfinished:
            yield unfinished
    except OSError as error:
        raise UserError(f"'{path}' can't be written ({error.strerror or error}); choose another --output") from error


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to fill, which becomes `path` once all is in it, in place of an empty folder and of nothing else.

    Raises:
        OSError: If the file system refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary folder is its owner's alone, the one in it is for those that other folders are for.
    with tempfile.TemporaryDirectory(prefix=f"{UNFINISHED}-", dir=path.parent, ignore_cleanup_errors=True) as outer:
        unfinished = pathlib.Path(outer, path.name)
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(path)
