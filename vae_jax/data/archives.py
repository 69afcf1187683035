"""Arrays from untrusted `.npz` and `.npy` files: sizes are checked before memory is taken, nothing is unpickled."""

import io
import math
import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vae_jax.errors import UserError
from vae_jax.escaping import one_line
from vae_jax.memory import available_memory, in_words

# Reading an array and dividing it into parts need a second copy for a while.
_COPIES = 2


def read_arrays(
    path: str | os.PathLike[str], needed: Sequence[str], optional: Sequence[str], what: str, mend: str, single: str = ""
) -> Mapping[str, np.ndarray]:
    """Reads some arrays of an `.npz`.

    Args:
        path: The file.
        needed: Names of arrays, at least one of which must be there.
        optional: Names of other arrays to read.
        what: What the file should be, for the error message: `an .npz with images`.
        mend: What the user can do about it.
        single: If given, an `.npy` will do too, and this is the name of its array.

    Returns:
        The arrays with these names that are there, in C order and the machine's byte order.

    Raises:
        UserError: If the file is missing, damaged or not an archive, none of the needed arrays is there, an array holds
            Python objects, or the arrays don't fit into the free memory.
    """
    try:
        # Opening a pipe would wait for its writer, and a device never ends.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is not a regular file")
        if single and Path(path).suffix == ".npy":
            _check_memory(os.path.getsize(path))
            return {single: _array(Path(path).read_bytes())}
        with zipfile.ZipFile(path) as archive:
            sizes = {member.filename.removesuffix(".npy"): member.file_size for member in archive.infolist()}
            names = [name for name in (*needed, *optional) if name in sizes]
            # zipfile never inflates a member beyond the size that the archive's directory declares.
            _check_memory(sum(sizes[name] for name in names))
            arrays = {name: _array(archive.read(f"{name}.npy")) for name in names}
    except Exception as error:
        # zipfile, zlib and NumPy raise many kinds of exceptions for a damaged file.
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"'{path}' can't be read as {what} ({reason}); {mend}") from error
    if not any(name in arrays for name in needed):
        found = one_line(", ".join(sizes) or "nothing")
        raise UserError(f"'{path}' can't be read as {what} (it holds {found}, but not {' or '.join(needed)}); {mend}")
    return arrays


def _array(content: bytes) -> np.ndarray:
    try:
        array = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except MemoryError as error:
        raise ValueError("the header declares an array larger than the file") from error
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


def room_for_arrays() -> float:
    """Bytes that arrays may take so that they, and a second copy, fit into the free memory; infinity if unknown."""
    free = available_memory()
    return math.inf if free is None else free // _COPIES


def _check_memory(needed: int) -> None:
    room = room_for_arrays()
    if needed > room:
        raise ValueError(f"its arrays take {in_words(needed)}, but there is room for {in_words(int(room))} only")
