"""What a disk, a copy or a hand can do to a file, and a disk that is too small."""

import pathlib
import subprocess
from collections.abc import Callable


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


# What is left of a file's content; None where the file is gone.
HARMS: dict[str, Callable[[bytes], bytes] | None] = {
    "truncate": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "zero": lambda content: bytes(len(content)),
    "flip": _flipped,
    "delete": None,
}


def harm(path: pathlib.Path, how: str = "flip") -> None:
    """Does one of `HARMS` to a file."""
    change = HARMS[how]
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))


class SmallDisk:
    """A file system of its own in memory, which can be made larger.

    Args:
        place: An empty folder to mount it at.
        kilobytes: Its size.

    Raises:
        PermissionError: Where mounting is not permitted.
    """

    def __init__(self, place: pathlib.Path, kilobytes: int) -> None:
        self.place = place
        self._run("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place))

    def enlarge(self) -> None:
        """Makes room of 64 MB."""
        self._run("mount", "-o", "remount,size=64m", str(self.place))

    def shield(self, folder: pathlib.Path) -> None:
        """Makes a folder on it read-only, even for those who have files in it open."""
        self._run("mount", "--bind", str(folder), str(folder))
        self._run("mount", "-o", "remount,bind,ro", str(folder))

    def unmount(self, folder: pathlib.Path) -> None:
        """Takes the disk or a shield away, even if something there is still open."""
        self._run("umount", "--lazy", str(folder))

    @staticmethod
    def _run(*command: str) -> None:
        try:
            answer = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise PermissionError("there is no command to mount with") from error
        if answer.returncode:
            raise PermissionError(answer.stderr.strip())
