"""X as rows of numbers: standardized, identified by content, and checked against what a likelihood fits."""

import dataclasses
import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from vae_jax.errors import UserError
from vae_jax.estimation.design import Design

# Of a grey level in float32, for up to 16 bits.
_ROUNDING = 0.01


@dataclasses.dataclass(frozen=True)
class Table:
    """X as rows of numbers.

    Attributes:
        values: Of any type of number.
        row_shape: Of a row as it was brought along: `(D,)`, `(H, W)` or `(H, W, C)`.
    """

    values: Shaped[np.ndarray, "n p"]
    row_shape: tuple[int, ...]


class Standard(NamedTuple):
    """`(values - mean) / scale`."""

    mean: Float[np.ndarray, "p"]
    scale: float

    @classmethod
    def fitted_to(cls, values: Shaped[np.ndarray, "n p"], wanted: bool) -> "Standard":
        """Standardizes those values on the whole; changes nothing if that isn't wanted."""
        if not wanted:
            return cls(np.zeros(values.shape[1]), 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = values.mean(axis=0, dtype=np.float64)
            variance = float(np.mean(np.square(values - mean)))
        return cls(mean, math.sqrt(variance) if variance > 0.0 else 1.0)

    def of(self, values: Shaped[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"]:
        """In float32; subtracted in the precision of the values, which may be large beside their differences."""
        precision = np.result_type(values.dtype, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            rows = np.subtract(values, self.mean.astype(precision), dtype=precision) / precision.type(self.scale)
            rows = np.ascontiguousarray(rows, np.float32)
        if not (math.isfinite(self.scale) and np.isfinite(rows).all()):
            raise UserError("X has values too large to compute with in float32; scale it, e.g. by RobustScaler")
        return rows

    def undone(self, rows: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"]:
        return rows * self.scale + self.mean


def content_ids(rows: Float[np.ndarray, "n p"]) -> Int[np.ndarray, "n"]:
    """A number for each row that follows from what is in it."""
    # Adding zero makes the zero with a sign, which is equal, the same.
    digests = [hashlib.blake2b(row.tobytes(), digest_size=4).digest() for row in rows + np.float32(0)]
    return np.frombuffer(b"".join(digests), "<i4").astype(np.int32)


def _kinds(rows: Float[np.ndarray, "n p"], max_value: int) -> frozenset[str]:
    """What the values are, in the words in which likelihoods declare what they fit."""
    if rows.min() < 0.0 or rows.max() > 1.0:
        return frozenset({"real"})
    levels = rows * np.float32(max_value)
    if np.abs(levels - np.rint(levels)).max() > _ROUNDING:
        return frozenset({"real", "continuous"})
    is_binary = bool(np.all((rows == 0.0) | (rows == 1.0)))
    return frozenset({"real", "continuous", "levels", *(["binary"] if is_binary else [])})


def check_is_in_range(design: Design, rows: Float[np.ndarray, "n p"]) -> None:
    if rows.min() < 0.0 or rows.max() > 1.0:
        raise UserError(
            f"likelihood '{design.config.model.likelihood}' is for values in [0, 1], and X has {rows.min():g} to "
            f"{rows.max():g}; scale it, e.g. by MinMaxScaler(clip=True), or choose gaussian_learned"
        )


def check_is_density(design: Design, rows: Float[np.ndarray, "n p"]) -> None:
    kinds, fits = _kinds(rows, design.max_value), design.model.likelihood.support
    if not kinds & fits:
        words = {
            "binary": "0 or 1",
            "levels": f"k / {design.max_value} (max_value)",
            "continuous": "in [0, 1]",
            "real": "real",
        }
        raise UserError(
            f"likelihood '{design.config.model.likelihood}' is a density of values that are "
            f"{' or '.join(words[kind] for kind in sorted(fits))}, and X has others; bring X into this form, or choose "
            "continuous_bernoulli (values in [0, 1]) or gaussian_learned (any)"
        )


def precision_of(values: np.ndarray) -> Any:
    """What results of these are given in."""
    return np.float32 if values.dtype == np.float32 else np.float64
