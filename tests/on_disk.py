"""What a folder holds, and harm to its files."""

import pathlib


def contents(folder: pathlib.Path) -> dict[str, bytes | None]:
    """Every file below a folder, byte for byte, and every folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def flip_a_bit(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut_off(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


HARMS = (flip_a_bit, cut_off, pathlib.Path.unlink)
