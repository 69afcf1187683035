"""What a fitted estimator is made of."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import validate_data

from vae_jax.errors import UserError
from vae_jax.estimation.parameters import Design
from vae_jax.estimation.rows import Standard
from vae_jax.models import Variables


class Fitted(NamedTuple):
    """The result of `fit`."""

    design: Design
    standard: Standard
    seed: np.uint32
    variables: Variables


def precision(values: np.ndarray) -> Any:
    """The precision of results for such values."""
    return np.float32 if values.dtype == np.float32 else np.float64


def new_seed(random_state: Any) -> np.uint32:
    """A seed from what scikit-learn takes as `random_state`."""
    return np.uint32(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def rows_of(estimator: Any, X: Any, fitted: tuple[int, ...] | None) -> tuple[np.ndarray, tuple[int, ...]]:
    """X as rows `[N, P]` of any type of number; and the shape of a row, `(D,)`, `(H, W)` or `(H, W, C)`.

    Args:
        estimator: What X is given to.
        X: Rows or images.
        fitted: Shape of the rows that the estimator was fitted to; None to fit it to these.

    Raises:
        UserError: If images have another shape than the fitted ones.
    """
    row_shape = None
    if (X if hasattr(X, "ndim") else np.asarray(X)).ndim > 2:
        images = check_array(X, allow_nd=True, input_name="X", estimator=estimator)
        row_shape, X = images.shape[1:], images.reshape(len(images), -1)
    X = validate_data(estimator, X, reset=fitted is None)
    row_shape = row_shape or X.shape[1:]
    if fitted is not None and row_shape not in (fitted, X.shape[1:]):
        raise UserError(f"X has images of shape {row_shape}, but the fitted ones are of {fitted}")
    return X, row_shape
