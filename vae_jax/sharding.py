"""The one mesh of the project: all devices along one axis, the batch divided over it."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

BATCH_AXIS = "batch"


def batch_mesh(batch_size: int, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of as many devices as divide the batch evenly.

    Args:
        batch_size: Images per step, over all devices.
        devices: What there is to use; all devices if None.

    Returns:
        A mesh with the single axis `batch`.
    """
    devices = jax.devices() if devices is None else devices
    size = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return Mesh(np.asarray(devices[:size]), (BATCH_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same whole array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The given axis of an array divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(*([None] * axis), BATCH_AXIS))
