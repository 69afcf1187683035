"""The rows of a metrics file."""

import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from vae_jax.data import SPLITS
from vae_jax.errors import UserError
from vae_jax.files import parse_json, read_bytes

_NUMBERS = {"epoch", "reconstruction", "elbo", "kl"}
_logger = logging.getLogger(__name__)


def row_line(row: Mapping[str, Any]) -> str:
    """A row as the line of a metrics file."""
    return json.dumps(row) + "\n"


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a metrics file.

    A last line without its end, cut off while it was written, is left out. Other lines that aren't rows are left out
    too, with a warning.

    Raises:
        UserError: If the file can't be read at all.
    """
    try:
        *lines, _ = read_bytes(path).split(b"\n") if path.exists() else [b""]
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror or error}); make it readable") from error
    rows = [_row(line) for line in lines]
    damaged = [str(number) for number, row in enumerate(rows, start=1) if row is None]
    if damaged:
        _logger.warning("%s is damaged and read without its lines %s", path, ", ".join(damaged))
    return [row for row in rows if row is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of a metrics file, or None if it isn't one."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    known = isinstance(row, dict) and type(row.get("step")) is int and row.get("split") in SPLITS
    if not known or not row.keys() >= _NUMBERS:
        return None
    numbers = [value for name, value in row.items() if name not in ("split", "replicas")]
    sound = all(value is None or (type(value) in (int, float) and -1e300 < value < 1e300) for value in numbers)
    return row if sound and (row["elbo"] is None) == (row["kl"] is None) else None
