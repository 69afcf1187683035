"""The record of a checkpoint: what was saved, and the checksums that tell whether it is still the same."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from vae_jax.escaping import one_line
from vae_jax.files import read_json, sync

STATE = "state"
_RECORD = "checkpoint.json"
_FIELDS, _DIGEST = {"step", "score", "files", "arrays"}, "digest"


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
        if name not in present:
            return f"{name} is missing"
        if present[name] != digest:
            return f"{name} has changed since it was written"
    added = [name for name in present if name not in checkpoint.files and not pathlib.Path(name).name.startswith(".")]
    return f"{added[0]} doesn't belong to it" if added else None


def write_record(folder: pathlib.Path, record: dict[str, Any]) -> None:
    """Writes the record of a checkpoint with its own digest."""
    path = folder / _RECORD
    path.write_text(json.dumps({**record, _DIGEST: _digest(record)}, indent=1))
    sync(path)


def folders(directory: pathlib.Path) -> list[pathlib.Path]:
    """The folders of all checkpoints, in the order of their names."""
    return sorted(folder for folder in directory.glob("[0-9]*") if folder.name.isdecimal() and folder.is_dir())


def _read_record(folder: pathlib.Path) -> Checkpoint | str:
    """A checkpoint as its record has it, or what is wrong with the record."""
    changed = f"{_RECORD} has changed since it was written"
    try:
        content = read_json(folder / _RECORD)
    except FileNotFoundError:
        return f"{_RECORD} is missing"
    except OSError as error:
        return f"{_RECORD} can't be read ({error.strerror or error})"
    except ValueError:
        return f"{_RECORD} is no JSON"
    if not isinstance(content, dict):
        return changed
    # The first release wrote no digest.
    digest = content.pop(_DIGEST, None)
    if set(content) != _FIELDS or digest not in (None, _digest(content)):
        return changed
    step, score, files, arrays = (content[name] for name in ("step", "score", "files", "arrays"))
    if type(step) is not int or str(step) != folder.name:
        return f"{_RECORD} is that of step {one_line(repr(step), 30)}"
    if score is not None and (type(score) not in (int, float) or not -1e30 < score < 1e30):
        return changed
    for mapping in (files, arrays):
        if not isinstance(mapping, dict) or not all(type(value) is str for value in mapping.values()):
            return changed
    return Checkpoint(folder, step, score, files, arrays)


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def checksums(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of each file below a folder."""
    return {str(path.relative_to(folder)): _checksum(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _checksum(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
