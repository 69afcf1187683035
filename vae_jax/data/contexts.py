"""Numbers that a conditional model is told of each image, from a CSV file."""

import contextlib
import csv
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from vae_jax.errors import UserError
from vae_jax.escaping import one_line, printable

_FILE = "file"


def read_contexts(
    path: str, files: Sequence[str], columns: str
) -> tuple[Float32[np.ndarray, "n context"], tuple[str, ...]]:
    """Reads a row of numbers for each image.

    Args:
        path: A CSV file in UTF-8, with a header. Its column `file` is the path of each image relative to the folder.
        files: The images, relative to the folder.
        columns: Names of the columns to take, with commas between; all but `file` if empty.

    Returns:
        The numbers, in the order of `files`, and the names of their columns.

    Raises:
        UserError: If the file can't be read, has no such column, no row for an image or two, or a cell that isn't a
            finite number.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"'{path}' can't be read as CSV ({one_line(error)}); set data.labels to another") from error
    if header.count(_FILE) != 1 or len(set(header)) != len(header):
        raise UserError(f"'{path}' needs a first line with a column '{_FILE}' and no name twice; add it")
    names = [name.strip() for name in columns.split(",")] if columns else [name for name in header if name != _FILE]
    if unknown := [name for name in names or [""] if name not in header or name == _FILE]:
        shown = one_line(", ".join(header), 200)
        raise UserError(f"'{path}' has no numbers '{unknown[0]}' among its columns ({shown}); change data.context")
    found: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows, 2):
        image = os.path.normpath(row[_FILE] or "")
        if None in row or None in row.values() or image in found:
            raise UserError(
                f"'{path}': row {number} has not {len(header)} cells, or names an image again; mend or remove it"
            )
        found[image] = row
    numbers = np.full((len(files), len(names)), np.nan, np.float32)
    for index, name in enumerate(files):
        if name not in found:
            raise UserError(f"'{path}' has no row for the image {printable(name)}; add one, or remove the image")
        for column, of_column in enumerate(names):
            cell = found[name][of_column]
            with contextlib.suppress(ValueError), np.errstate(over="ignore"):
                numbers[index, column] = float(cell)
            if not np.isfinite(numbers[index, column]):
                what = f"{printable(of_column)} of {printable(name)} is '{printable(cell[:60])}'"
                raise UserError(
                    f"'{path}': {what}, which is no finite number; mend it, or name other columns in data.context"
                )
    return numbers, tuple(map(printable, names))
