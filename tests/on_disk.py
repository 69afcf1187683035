"""What a folder holds."""

import pathlib


def contents(folder: pathlib.Path) -> dict[str, bytes | None]:
    """Every file below a folder, byte for byte, and every folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}
