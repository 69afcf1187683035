"""What a disk, a copy or a hand can do to a file, and a disk that is too small."""

import pathlib
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest


def truncate(path: pathlib.Path) -> None:
    """Takes the second half away."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: pathlib.Path) -> None:
    """Takes all away but the name."""
    path.write_bytes(b"")


def zero(path: pathlib.Path) -> None:
    """Keeps the size alone."""
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: pathlib.Path) -> None:
    """Turns a bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete(path: pathlib.Path) -> None:
    """Takes the file away."""
    path.unlink()


def some_manual(values: Iterable[Any], quick: Iterable[Any]) -> list[Any]:
    """Parameters of a test of which all but the quick ones are a long form."""
    chosen = list(quick)
    return [value if value in chosen else pytest.param(value, marks=pytest.mark.manual) for value in values]


HARMS: dict[str, Callable[[pathlib.Path], None]] = {
    harm.__name__: harm for harm in (truncate, empty, zero, flip, delete)
}


def flipped(content: bytes, every: int = 7) -> Iterator[bytes]:
    """The content with one bit turned: every seventh one, so that each byte and each place in a byte has its turn."""
    for bit in range(0, 8 * len(content), every):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


class SmallDisk:
    """A file system of its own in memory, which can be made larger and read-only.

    Args:
        place: An empty folder to mount it at.
        kilobytes: Its size.

    Raises:
        PermissionError: Where mounting is not permitted.
    """

    def __init__(self, place: pathlib.Path, kilobytes: int) -> None:
        self.place = place
        self._mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs")

    def remount(self, options: str) -> None:
        """Changes its options: `size=64m`, `ro`, `rw`."""
        self._mount("-o", f"remount,{options}")

    def shield(self, folder: pathlib.Path) -> None:
        """Makes a folder on it read-only, even for those who have files in it open."""
        self._run("mount", "--bind", str(folder), str(folder))
        self._run("mount", "-o", "remount,bind,ro", str(folder))

    def unshield(self, folder: pathlib.Path) -> None:
        """Takes that back."""
        self._run("umount", "--lazy", str(folder))

    def close(self) -> None:
        """Takes it away, with all that is on it, even if something there is still open."""
        self._run("umount", "--lazy", str(self.place))

    def _mount(self, *arguments: str) -> None:
        self._run("mount", *arguments, str(self.place))

    @staticmethod
    def _run(*command: str) -> None:
        try:
            answer = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise PermissionError("there is no command to mount with") from error
        if answer.returncode:
            raise PermissionError(answer.stderr.strip())
