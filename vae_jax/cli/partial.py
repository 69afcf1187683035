"""What a long evaluation has found so far, so that it can be interrupted and continued."""

import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from vae_jax.data.archives import read_arrays
from vae_jax.errors import UserError
from vae_jax.files import replacing


class PartialResult:
    """A file with the arrays of the images that are done; each question has one of its own.

    Args:
        folder: Where it is kept.
        name: How it begins.
        question: All that the answer depends on. A file that belongs to another question, or is damaged, is as none.
    """

    def __init__(self, folder: pathlib.Path, name: str, question: dict[str, Any]) -> None:
        self._question = json.dumps(question, sort_keys=True)
        tag = hashlib.sha256(self._question.encode()).hexdigest()[:8]
        self._path = folder / f"{name}.{tag}.partial.npz"

    def load(self) -> dict[str, Any] | None:
        """The arrays of the images that are done, or None."""
        try:
            arrays = dict(read_arrays(self._path, None, "a part of an answer", "delete it").arrays)
        except UserError:
            return None
        question = arrays.pop("question", None)
        return arrays if question is not None and question.tolist() == self._question else None

    def save(self, arrays: dict[str, np.ndarray]) -> None:
        """Writes the file anew, whole or not at all.

        Raises:
            UserError: If the file system doesn't take it.
        """
        content: dict[str, Any] = {"question": np.asarray(self._question), **arrays}
        mend = "make room, then run the same command again"
        with replacing(self._path, mend) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **content)

    def remove(self) -> None:
        """Takes the file away, when the whole answer is written."""
        self._path.unlink(missing_ok=True)
