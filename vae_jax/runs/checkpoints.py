"""Checkpoints of a run: saved with Orbax, whole or not at all, and verified before they are loaded.

The only file that knows Orbax. A checkpoint is a folder named by its step:

    checkpoints/8900/state/            what Orbax wrote
    checkpoints/8900/checkpoint.json   step, score, shape and type of each array, SHA-256 of every file under state/,
                                       and of all that itself

It is written under another name and renamed last. Orbax by itself loads a file with a flipped bit
without noticing, hence the checksums.
"""

import errno
import logging
import pathlib
import shutil
from typing import Any

import jax
import orbax.checkpoint as ocp

from vae_jax.errors import UserError
from vae_jax.escaping import one_line
from vae_jax.files import sync
from vae_jax.processes import is_writer, together
from vae_jax.runs.records import STATE, Checkpoint, best, checksums, damage, folders, listing, unreadable, write_record

_UNFINISHED = ".unfinished-"
# What Orbax's index and our record take besides the numbers.
_OVERHEAD_BYTES = 1 << 20

# Orbax reports every save and the threads it used, which buries what a user wants to read.
logging.getLogger("absl").setLevel(logging.ERROR)
# It also logs the content of a file that it can't read, and then raises: bytes that a terminal may obey.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)


def save(directory: pathlib.Path, step: int, state: Any, score: float | None, keep: int) -> None:
    """Writes a checkpoint and removes those that are no longer kept, and those of later steps.

    There are later ones only where they were damaged, and training went back to an earlier one.

    Of several processes all have to call this, on a file system that they share: Orbax lets each write what it has, the
    first one does the rest.

    Args:
        directory: The folder of all checkpoints of a run; made in the run's folder if it isn't there.
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
            directory.mkdir(exist_ok=True)
            for leftover in directory.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(leftover)
            unfinished.mkdir()
            _check_room(directory, state)
        together("checkpoint begun")
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((unfinished / STATE).absolute(), state)
        together("checkpoint written")
        if is_writer():
            files = checksums(unfinished / STATE)
            write_record(unfinished, {"step": step, "score": score, "files": files, "arrays": _arrays(state)})
            # All has to be on the disk: the earlier checkpoints are removed on the strength of it.
            for path in (*unfinished.rglob("*"), unfinished):
                sync(path)
            if final.exists():
                _remove(final)
            unfinished.rename(final)
            sync(directory)
            _remove_others(directory, step, keep)
    except (OSError, ValueError) as error:
        # Orbax tells of a full disk with a ValueError of many lines.
        cause = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        kept = "earlier checkpoints are whole" if listing(directory) else "it starts anew, there is no earlier one"
        raise UserError(
            f"checkpoint {final} could not be written ({cause}); make room or choose another --workdir, then run the "
            f"same command again: {kept}"
        ) from error
    together("checkpoint kept")


def choose(directory: pathlib.Path, which: str) -> Checkpoint:
    """Finds a checkpoint by what a user calls it.

    Args:
        directory: The folder of all checkpoints of a run.
        which: A step, `best`, or `latest`.

    Raises:
        UserError: If there is no such checkpoint.
    """
    checkpoints = listing(directory)
    newest = checkpoints[-1].step if checkpoints else -1
    # A damaged record may be that of the newest one, or of the best.
    for folder, why in unreadable(directory).items():
        if which in ("best", folder.name) or (which == "latest" and int(folder.name) > newest):
            raise UserError(f"checkpoint {folder} is damaged: {why}; choose another step, or delete that folder")
    if not checkpoints:
        raise UserError(f"{directory} holds no checkpoint; train first in the same folder")
    steps = {str(checkpoint.step): checkpoint for checkpoint in checkpoints}
    chosen = {**steps, "latest": checkpoints[-1], "best": best(checkpoints)}.get(which)
    if chosen is None:
        why = "the best one is known with --config.data.validation_fraction above 0 only: " if which == "best" else ""
        raise UserError(
            f"there is no checkpoint '{which}' in {directory}; {why}choose latest, best or one of {', '.join(steps)}"
        )
    return chosen


def newest_sound(directory: pathlib.Path) -> tuple[Checkpoint | None, dict[pathlib.Path, str]]:
    """Where training can go on from.

    Args:
        directory: The folder of all checkpoints of a run.

    Returns:
        The newest checkpoint without damage, or None; and what is wrong with those that were found damaged on the way,
        by their folders.
    """
    wrong = unreadable(directory)
    for checkpoint in reversed(listing(directory)):
        reason = damage(checkpoint)
        if reason is None:
            return checkpoint, wrong
        wrong[checkpoint.folder] = reason
    return None, wrong


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
    folder = (checkpoint.folder / STATE).absolute()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved: Any = checkpointer.metadata(folder).item_metadata.tree
            return checkpointer.restore(folder, jax.tree.map(_placed, saved if like is None else like))
    except Exception as error:
        # Its checksums agree, so somebody made it so; Orbax raises whatever comes to hand.
        raise UserError(
            f"checkpoint {checkpoint.folder} can't be read ({one_line(error)}); delete that folder and use another one"
        ) from error


def _placed(leaf: Any) -> Any:
    """The leaf, on this process's first device where it says nothing: those it was saved from may not be here."""
    if isinstance(getattr(leaf, "sharding", None), jax.sharding.Sharding):
        return leaf
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)


def _remove_others(directory: pathlib.Path, step: int, keep: int) -> None:
    """Removes what is no longer kept once the checkpoint of `step` is on the disk."""
    checkpoints = [checkpoint for checkpoint in listing(directory) if checkpoint.step <= step]
    others = [checkpoint.folder for checkpoint in checkpoints[:-keep] if checkpoint != best(checkpoints)]
    for folder in folders(directory):
        if int(folder.name) > step or folder in others:
            _remove(folder)


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
