"""What tests have done to pixels in the processes that decode; in a module that those can import."""

import numpy as np
from jax._src import xla_bridge

from vae_jax.data.binarization import binarized_once


def binarized_without_jax(pixels: np.ndarray, numbers: np.ndarray | None) -> np.ndarray:
    """Binarizes the test part with seed 3, where JAX has no device in use.

    Raises:
        RuntimeError: If it has one.
    """
    binary = binarized_once(pixels, 255, seed=3, part=2, numbers=numbers)
    if xla_bridge._backends:
        raise RuntimeError(f"JAX uses {', '.join(xla_bridge._backends)} in a process that decodes")
    return binary
