"""Rows of numbers: standardized, identified by content, and checked against what a likelihood is for."""

import hashlib
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from vae_jax.errors import UserError
from vae_jax.estimation.parameters import Design

# Tolerance for grey levels in float32, enough for 16 bits.
_ROUNDING = 0.01
_IN_WORDS = {
    "binary": "0 or 1",
    "levels": "k / {} (max_value)",
    "continuous": "in [0, 1]",
    "counts": "whole numbers from 0",
}


class Standard(NamedTuple):
    """Standardizes rows: `(values - mean) / scale`."""

    mean: Float[np.ndarray, "p"]
    scale: float

    @classmethod
    def fitted_to(cls, values: Shaped[np.ndarray, "n p"]) -> "Standard":
        """A mean for each column, and one scale for all."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean = values.mean(axis=0, dtype=np.float64)
            variance = float(np.mean(np.square(values - mean)))
        return cls(mean, math.sqrt(variance) if variance > 0.0 else 1.0)

    def of(self, values: Shaped[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"]:
        """Standardized rows in float32, subtracted in the precision of the values: their mean may be large.

        Raises:
            UserError: If they are too large for float32.
        """
        precision = np.result_type(values.dtype, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            rows = np.subtract(values, self.mean.astype(precision), dtype=precision) / precision.type(self.scale)
            rows = np.ascontiguousarray(rows, np.float32)
        if not (math.isfinite(self.scale) and np.isfinite(rows).all()):
            raise UserError("X has values too large to compute with in float32; scale it, e.g. by RobustScaler")
        return rows

    def undone(self, rows: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"]:
        """The rows before they were standardized."""
        return rows * self.scale + self.mean


def content_ids(rows: Float[np.ndarray, "n p"]) -> Int[np.ndarray, "n"]:
    """A number for each row that depends on its content only."""
    # Adding zero turns -0 into 0, since the two are equal.
    digests = [hashlib.blake2b(row.tobytes(), digest_size=4).digest() for row in rows + np.float32(0)]
    return np.frombuffer(b"".join(digests), "<i4").astype(np.int32)


def check_support(design: Design, rows: Float[np.ndarray, "n p"]) -> None:
    """Refuses values that the likelihood isn't a density of.

    Raises:
        UserError: If there are any.
    """
    within = rows.min() >= 0.0 and rows.max() <= 1.0
    levels = np.clip(rows, 0.0, 1.0) * np.float32(design.max_value)
    found = {
        "binary": np.all((rows == 0.0) | (rows == 1.0)),
        "levels": within and np.abs(levels - np.rint(levels)).max() <= _ROUNDING,
        "continuous": within,
        "counts": rows.min() >= 0.0 and np.all(rows == np.rint(rows)),
        "real": True,
    }
    if not any(found[kind] for kind in design.model.support):
        words = " or ".join(_IN_WORDS[kind].format(design.max_value) for kind in sorted(design.model.support))
        raise UserError(
            f"likelihood '{design.config.model.likelihood}' is a density of values that are {words}, and X has others, "
            f"from {rows.min():g} to {rows.max():g}; bring X into this form, or choose continuous_bernoulli (values in "
            "[0, 1], e.g. by MinMaxScaler(clip=True)) or gaussian(learned=True) (any)"
        )
