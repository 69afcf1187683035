"""Checkpoints of a run: saved with Orbax, whole or not at all, and verified before they are loaded.

The only file that knows Orbax. A checkpoint is a folder named by its step:

    checkpoints/8900/state/            what Orbax wrote
    checkpoints/8900/checkpoint.json   step, score, shape and type of each array, SHA-256 of every file under state/

It is written under another name and renamed last. Orbax by itself loads a file with a flipped bit
without noticing, hence the checksums.
"""

import dataclasses
import errno
import hashlib
import json
import logging
import math
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from vae_jax.errors import UserError
from vae_jax.files import read_json
from vae_jax.memory import available_memory, in_words
from vae_jax.printable import one_line
from vae_jax.processes import is_writer, together

_RECORD = "checkpoint.json"
_STATE = "state"
_UNFINISHED = ".unfinished-"
# What Orbax's index and our record take besides the numbers.
_OVERHEAD_BYTES = 1 << 20

# Orbax reports every save and the threads it used, which buries what a user wants to read.
logging.getLogger("absl").setLevel(logging.ERROR)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        folder: Where it is.
        step: Steps taken.
        score: ELBO on the validation images in nats, or None where there are none.
        files: SHA-256 of each file, by its path below `state/`.
        arrays: Shape and type of each array, by its path in the tree.
    """

    folder: pathlib.Path
    step: int
    score: float | None
    files: Mapping[str, str]
    arrays: Mapping[str, str]


def save(directory: pathlib.Path, step: int, state: Any, score: float | None, keep: int) -> None:
    """Writes a checkpoint and removes those that are no longer kept.

    Of several processes all have to call this, on a file system that they share: Orbax lets each write what it has, the
    first one does the rest.

    Args:
        directory: The folder of all checkpoints of a run.
        step: Steps taken.
        state: Tree of arrays.
        score: Higher is better; None where nothing was measured.
        keep: How many of the newest stay, besides the best.

    Raises:
        UserError: If the file system doesn't take it; the earlier checkpoints stay as they were.
    """
    unfinished = directory / f"{_UNFINISHED}{step}"
    final = directory / str(step)
    try:
        if is_writer():
            directory.mkdir(parents=True, exist_ok=True)
            for leftover in directory.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(leftover)
            unfinished.mkdir()
            _check_room(directory, state)
        together("checkpoint begun")
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((unfinished / _STATE).absolute(), state)
        together("checkpoint written")
        if is_writer():
            files = _checksums(unfinished / _STATE)
            record = {"step": step, "score": score, "files": files, "arrays": _arrays(state)}
            _write_durably(unfinished / _RECORD, json.dumps(record, indent=1))
            if final.exists():
                _remove(final)
            unfinished.rename(final)
            _sync_folder(directory)
            _remove_old(directory, keep)
    except (OSError, ValueError) as error:
        # Orbax tells of a full disk with a ValueError of many lines.
        cause = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        raise UserError(
            f"checkpoint {final} could not be written ({cause}); make room or choose another "
            "--workdir, then run the same command again: earlier checkpoints are whole"
        ) from error
    together("checkpoint kept")


def listing(directory: pathlib.Path) -> list[Checkpoint]:
    """The finished checkpoints of a run, oldest first; those whose record can't be read are left out."""
    found = []
    for folder in directory.glob("[0-9]*"):
        try:
            found.append(_of_record(folder, read_json(folder / _RECORD)))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # `choose` says so to whoever asks for it by its step
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def _of_record(folder: pathlib.Path, record: Any) -> Checkpoint:
    step, score, files, arrays = (record[name] for name in ("step", "score", "files", "arrays"))
    if type(step) is not int or str(step) != folder.name:
        raise ValueError(f"its step is {step!r}")
    if score is not None and (type(score) not in (int, float) or not math.isfinite(score)):
        raise ValueError(f"its score is {score!r}")
    for mapping in (files, arrays):
        if not isinstance(mapping, dict) or not all(type(value) is str for value in mapping.values()):
            raise ValueError("it doesn't name files and arrays")
    return Checkpoint(folder, step, score, files, arrays)


def best(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """The one with the highest score, the later of equals; None where none has a score."""
    scored = [(c.score, c.step, c) for c in checkpoints if c.score is not None]
    return max(scored, key=lambda entry: entry[:2])[-1] if scored else None


def choose(directory: pathlib.Path, which: str) -> Checkpoint:
    """Finds a checkpoint by what a user calls it.

    Args:
        directory: The folder of all checkpoints of a run.
        which: A step, `best`, or `latest`.

    Raises:
        UserError: If there is no such checkpoint.
    """
    checkpoints = listing(directory)
    if not checkpoints:
        raise UserError(f"{directory} holds no checkpoint; train first with the same --workdir")
    if which == "latest":
        return checkpoints[-1]
    if which == "best":
        chosen = best(checkpoints)
        if chosen is None:
            raise UserError(
                "no checkpoint is the best one: the run had no validation images; name a step, or train with "
                "--config.data.validation_fraction above 0"
            )
        return chosen
    for checkpoint in checkpoints:
        if str(checkpoint.step) == which:
            return checkpoint
    if which.isdigit() and (directory / which).is_dir():
        raise UserError(
            f"checkpoint {directory / which} is damaged: its {_RECORD} can't be read; choose latest or another step"
        )
    steps = ", ".join(str(checkpoint.step) for checkpoint in checkpoints)
    raise UserError(f"there is no checkpoint '{which}' in {directory}; choose latest, best or one of {steps}")


def damage(checkpoint: Checkpoint) -> str | None:
    """What is wrong with a checkpoint's files, or None if each is as it was written."""
    try:
        present = _checksums(checkpoint.folder / _STATE)
    except OSError as error:
        return f"its files can't be read ({error.strerror})"
    for name, digest in checkpoint.files.items():
        if name not in present:
            return f"{name} is missing"
        if present[name] != digest:
            return f"{name} has changed since it was written"
    return None


def load(checkpoint: Checkpoint, like: Any = None) -> Any:
    """Verifies a checkpoint and loads it.

    Args:
        checkpoint: Which.
        like: Tree of `jax.ShapeDtypeStruct` (with shardings, if wanted) to load into; None for nested
            dictionaries as they were saved.

    Raises:
        UserError: If a file is damaged, or the tree doesn't fit.
    """
    wrong = damage(checkpoint)
    if wrong is not None:
        raise UserError(f"checkpoint {checkpoint.folder} is damaged: {wrong}; delete that folder and use another one")
    # Orbax would find out too, in the middle of reading and with a page of words.
    expected = checkpoint.arrays if like is None else _arrays(like)
    if expected != checkpoint.arrays:
        name = min(dict(expected.items() ^ checkpoint.arrays.items()))
        raise UserError(
            f"checkpoint {checkpoint.folder} holds another model than the config describes ({name} is "
            f"{checkpoint.arrays.get(name, 'absent')} there and {expected.get(name, 'absent')} here); "
            "restore the run's own config.json"
        )
    folder = (checkpoint.folder / _STATE).absolute()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved: Any = checkpointer.metadata(folder).item_metadata.tree
            _check_saved(checkpoint, saved)
            return checkpointer.restore(folder, jax.tree.map(_placed, saved if like is None else like))
    except UserError:
        raise
    except Exception as error:
        # Its checksums agree, so somebody made it so; Orbax raises whatever comes to hand.
        raise UserError(
            f"checkpoint {checkpoint.folder} can't be read ({one_line(error)}); delete that folder and use another one"
        ) from error


def _check_saved(checkpoint: Checkpoint, saved: Any) -> None:
    """Refuses what Orbax would read other arrays from than the record names, or more than fits the memory."""
    if _arrays(saved) != checkpoint.arrays:
        raise UserError(
            f"checkpoint {checkpoint.folder} is damaged: {_RECORD} names other arrays than are there; delete that "
            "folder and use another one"
        )
    leaves = jax.tree.leaves(saved)
    # What is compressed is so in pieces, which can be said to be larger than the array, and are inflated whole.
    if any(leaf.storage and _exceeds(leaf.storage.chunk_shape, leaf.shape) for leaf in leaves):
        raise UserError(
            f"checkpoint {checkpoint.folder} is damaged: an array is kept in pieces that are larger than itself; "
            "delete that folder and use another one"
        )
    needed, free = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves), available_memory()
    if free is not None and needed > free:
        raise UserError(
            f"checkpoint {checkpoint.folder} takes {in_words(needed)} of memory, and {in_words(free)} are free; open "
            "it on a larger machine"
        )


def _exceeds(piece: Sequence[int] | None, shape: Sequence[int]) -> bool:
    return piece is not None and any(part > max(1, side) for part, side in zip(piece, shape, strict=True))


def _placed(leaf: Any) -> Any:
    """The leaf, on this process's first device where it says nothing: those it was saved from may not be here."""
    if isinstance(getattr(leaf, "sharding", None), jax.sharding.Sharding):
        return leaf
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)


def _remove_old(directory: pathlib.Path, keep: int) -> None:
    checkpoints = listing(directory)
    kept = {c.step for c in checkpoints[-keep:]}
    top = best(checkpoints)
    if top is not None:
        kept.add(top.step)
    for checkpoint in checkpoints:
        if checkpoint.step not in kept:
            _remove(checkpoint.folder)


def _remove(folder: pathlib.Path) -> None:
    """Removes a checkpoint so that, cut off in the middle, what is left is cleared away by the next one."""
    doomed = folder.with_name(f"{_UNFINISHED}removed-{folder.name}")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _check_room(directory: pathlib.Path, state: Any) -> None:
    """Refuses before Orbax begins what it could not finish, and could not stop without a page of words."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OVERHEAD_BYTES
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free")


def _arrays(tree: Any) -> dict[str, str]:
    """Shape and type of each array by its path: `params/encoder/Dense_0/bias` is `float32[400]`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): _checksum(path) for path in files}


def _checksum(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_durably(path: pathlib.Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
