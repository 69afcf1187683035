"""Files that are there whole or not at all."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from vae_jax.errors import UserError


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
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror or error}); {mend}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def write_json(path: pathlib.Path, content: Any, mend: str = "choose another place") -> None:
    """Writes JSON that every parser can read: not-a-number and infinity are none.

    Raises:
        UserError: If the file system doesn't take it.
    """
    with replacing(path, mend) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def check_output(path: pathlib.Path, flag: str = "--output") -> None:
    """Finds out before long work whether its result can be kept.

    Raises:
        UserError: If `path` is a folder, or lies where nothing can be written.
    """
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; name a file with {flag}")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"nothing can be written to {folder}; name another file with {flag}")
