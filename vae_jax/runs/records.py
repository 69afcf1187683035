"""The record of a checkpoint: what was saved, and the checksums that tell whether it is still the same."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from vae_jax.escaping import one_line
from vae_jax.files import read_json

STATE = "state"
_RECORD = "checkpoint.json"
_DIGEST = "digest"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        folder: Where it is.
        step: Steps taken.
        score: ELBO on the validation images in nats, or None without such images.
        files: SHA-256 of each file, by its path below `state/`.
        arrays: Shape and type of each array, by its path in the tree.
    """

    folder: pathlib.Path
    step: int
    score: float | None
    files: Mapping[str, str]
    arrays: Mapping[str, str]


def listing(directory: pathlib.Path) -> list[Checkpoint]:
    """The finished checkpoints of a run, oldest first; `unreadable` has those whose record is damaged."""
    found = [record for record in map(_read_record, folders(directory)) if isinstance(record, Checkpoint)]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def unreadable(directory: pathlib.Path) -> dict[pathlib.Path, str]:
    """The folders of checkpoints whose record is damaged, and what is wrong with each."""
    records = {folder: _read_record(folder) for folder in folders(directory)}
    return {folder: record for folder, record in records.items() if isinstance(record, str)}


def best(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The one with the highest score, the later of equals; None where none has a score."""
    scored = [(c.score, c.step, c) for c in checkpoints if c.score is not None]
    return max(scored, key=lambda entry: entry[:2])[-1] if scored else None


def damage(checkpoint: Checkpoint) -> str | None:
    """What is wrong with a checkpoint's files, or None if each is as it was written and there is no other.

    Hidden files don't count: file managers and network file systems leave them, and Orbax reads none.
    """
    try:
        present = checksums(checkpoint.folder / STATE)
    except OSError as error:
        return f"{error.filename} can't be read ({error.strerror or error})"
    for name, digest in checkpoint.files.items():
        if present.pop(name, None) != digest:
            return f"{name} is missing or has changed since it was written"
    added = [name for name in present if not pathlib.Path(name).name.startswith(".")]
    return f"{added[0]} doesn't belong to it" if added else None


def write_record(folder: pathlib.Path, record: dict[str, Any]) -> None:
    """Writes the record of a checkpoint with its own digest."""
    (folder / _RECORD).write_text(json.dumps({**record, _DIGEST: _digest(record)}, indent=1))


def folders(directory: pathlib.Path) -> list[pathlib.Path]:
    """The folders of all checkpoints, in the order of their names."""
    return sorted(folder for folder in directory.glob("[0-9]*") if folder.name.isdecimal() and folder.is_dir())


def _read_record(folder: pathlib.Path) -> Checkpoint | str:
    """A checkpoint as its record has it, or what is wrong with the record."""
    try:
        content = read_json(folder / _RECORD)
        # The first release wrote no digest.
        digest = content.pop(_DIGEST, None)
        found = Checkpoint(folder, **content)
        texts = *found.files.values(), *found.arrays.values()
        sound = digest in (None, _digest(content)) and all(type(text) is str for text in texts)
        sound = sound and (found.score is None or -1e30 < found.score < 1e30)
    except (OSError, ValueError) as error:
        return f"{_RECORD} can't be read ({one_line(error)})"
    except (AttributeError, TypeError):
        sound = False
    if not sound:
        return f"{_RECORD} has changed since it was written"
    if type(found.step) is not int or str(found.step) != folder.name:
        return f"{_RECORD} is that of step {one_line(repr(found.step), 30)}"
    return found


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def checksums(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of each file below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
