"""Arrays from `.npz` and `.npy` files that anybody may have made.

What a file says of an array (type, shape, size) is read first, and believed only where it is consistent and fits the
memory: a few kilobytes can claim, or inflate to, any number of terabytes. Nothing is unpickled.
"""

import dataclasses
import io
import math
import os
import stat
import zipfile
from collections.abc import Collection, Mapping
from typing import IO, Any

import numpy as np

from vae_jax.errors import UserError
from vae_jax.memory import available_memory, in_words
from vae_jax.printable import one_line

# What the directory of an archive may take: some 10,000 arrays.
_MOST_PIECE = 2**20
# Deflate makes at most 1032 bytes out of one.
_MOST_RATIO = 1032
# NumPy's own bound on the text that says what an array is, and what stands before it.
_MOST_HEADER = 10_000 + 12
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_KINDS = "biufcSU"
# Images are divided into parts, latents become another type: there is a second copy for a while.
_COPIES = 2
_NAMED = 20


@dataclasses.dataclass(frozen=True)
class Arrays:
    """What was read.

    Attributes:
        arrays: Those that were wanted and are there.
        names: All names in the file, in its order.
    """

    arrays: Mapping[str, np.ndarray]
    names: tuple[str, ...]

    def listed(self) -> str:
        """The names for people, not too many of them."""
        more = ", ..." if len(self.names) > _NAMED else ""
        return ", ".join(one_line(name, 60) for name in self.names[:_NAMED]) + more or "nothing"


def read_arrays(
    path: str | os.PathLike[str], wanted: Collection[str] | None, what: str, mend: str, single: str | None = None
) -> Arrays:
    """Reads arrays of numbers or texts from an `.npz`.

    Args:
        path: The file.
        wanted: Their names; None for all. Others aren't looked at.
        what: What the file was to be, for the error: `an .npz with images`.
        mend: What the user can do about it.
        single: Name for the array of an `.npy`, where one will do too.

    Returns:
        The arrays, in C order and the machine's byte order.

    Raises:
        UserError: If there is no such file; it is no such archive, or damaged; an array holds Python objects, fields,
            or another number of bytes than its shape takes; or all of them are too large for the memory that is free.
    """
    try:
        with _open(path) as file:
            start = file.read(len(np.lib.format.MAGIC_PREFIX))
            file.seek(0)
            if start == np.lib.format.MAGIC_PREFIX:
                if single is None:
                    raise ValueError("it holds a single array")
                return Arrays({single: _of_npy(file)}, (single,))
            return _of_npz(file, wanted)
    except UserError:
        raise
    except Exception as error:
        # zipfile, zlib and NumPy raise whatever comes to hand where a file is damaged.
        reason = getattr(error, "strerror", None) or one_line(error)
        raise UserError(f"'{path}' can't be read as {what} ({reason}); {mend}") from error


def check_memory(needed: int, what: str) -> None:
    """Refuses what the memory that is free can't hold, before any of it is taken.

    Raises:
        ValueError: With both sizes.
    """
    free = available_memory()
    if free is not None and needed * _COPIES > free:
        raise ValueError(f"{what} {in_words(needed)}, and there is room for {in_words(free // _COPIES)}")


class _Frugal(io.FileIO):
    """A file that refuses to be read in pieces larger than an honest archive's directory.

    `zipfile` reads the directory, whose size the file itself names, at once; arrays come in small pieces.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        if (left if size is None or size < 0 else min(size, left)) > _MOST_PIECE:
            raise ValueError(f"its directory, or one number or text in it, is larger than {in_words(_MOST_PIECE)}")
        return super().read(size)


def _open(path: str | os.PathLike[str]) -> _Frugal:
    # Opening a pipe would wait for whoever writes to it, and a device never ends.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no file")
    return _Frugal(path)


def _of_npz(file: _Frugal, wanted: Collection[str] | None) -> Arrays:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = tuple(member.filename.removesuffix(".npy") for member in members)
        chosen = [
            (name, member)
            for name, member in zip(names, members, strict=True)
            if member.filename.endswith(".npy") and (wanted is None or name in wanted)
        ]
        if len({name for name, _ in chosen}) < len(chosen):
            raise ValueError("it holds two arrays of one name")
        size = os.fstat(file.fileno()).st_size
        needed = 0
        for name, member in chosen:
            _check_member(name, member, size)
            with archive.open(member) as content:
                needed += _checked_header(name, content, member.file_size)
        check_memory(needed, "its arrays take" if len(chosen) > 1 else f"'{chosen[0][0]}' takes" if chosen else "")
        arrays = {}
        for name, member in chosen:
            with archive.open(member) as content:
                arrays[name] = _plain(np.lib.format.read_array(content, allow_pickle=False))
                # The checksum is compared at the end, which NumPy needn't have come to.
                content.read(1)
    return Arrays(arrays, names)


def _of_npy(file: _Frugal) -> np.ndarray:
    check_memory(_checked_header("the array", file, os.fstat(file.fileno()).st_size), "the array takes")
    file.seek(0)
    return _plain(np.lib.format.read_array(file, allow_pickle=False))


def _check_member(name: str, member: zipfile.ZipInfo, size: int) -> None:
    """Refuses what can't be an array that NumPy wrote, by the archive's directory alone."""
    if member.flag_bits & 0x1:
        raise ValueError(f"'{name}' is encrypted")
    if member.compress_type not in _METHODS:
        raise ValueError(f"'{name}' is compressed by method {member.compress_type}; NumPy uses {_METHODS}")
    most = member.compress_size * (1 if member.compress_type == zipfile.ZIP_STORED else _MOST_RATIO)
    if member.compress_size > size or member.file_size > most:
        raise ValueError(
            f"'{name}' is said to take {in_words(member.file_size)} but can't, with {in_words(member.compress_size)} "
            f"of {in_words(size)} in the file"
        )


def _checked_header(name: str, content: IO[bytes] | io.BufferedIOBase | io.RawIOBase, present: int) -> int:
    """Bytes that an array takes by its header, which have to be those that follow it.

    Raises:
        ValueError: If they aren't, or it is no array of numbers or texts.
    """
    header = io.BytesIO(content.read(_MOST_HEADER))
    version = np.lib.format.read_magic(header)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"'{name}' has fields, or a format that isn't known ({version})")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(header)
    if dtype.hasobject:
        raise ValueError(f"'{name}' holds Python objects, which aren't unpickled")
    if dtype.kind not in _KINDS or dtype.itemsize == 0 or dtype.names is not None or dtype.subdtype is not None:
        raise ValueError(f"'{name}' is of type {dtype}, not one of plain numbers or texts")
    if any(isinstance(side, bool) or side < 0 for side in shape) or len(shape) > 8:
        raise ValueError(f"'{name}' has shape {shape}")
    needed = math.prod(shape) * dtype.itemsize
    if header.tell() + needed != present:
        raise ValueError(
            f"'{name}' is {dtype} of shape {shape}, {in_words(needed)}, but holds {in_words(present - header.tell())}"
        )
    return needed


def _plain(array: np.ndarray) -> np.ndarray:
    native: Any = array.dtype.newbyteorder("=")
    return np.asarray(array, native, order="C")
