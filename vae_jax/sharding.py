"""The one mesh of the project: devices along one axis, the batch divided over it.

With several processes each brings its devices to the mesh. Arrays on it belong to all of them: each process puts its
part there (`put`), and what every process is to read is first brought together (`gathered`).
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.layout import Format
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae_jax.errors import UserError

BATCH_AXIS = "batch"


def batch_mesh(batch_size: int, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of as many devices as divide the batch evenly, equally many of each process.

    Args:
        batch_size: Images per step, over all devices.
        devices: What there is to use; all devices if None.

    Returns:
        A mesh with the single axis `batch`, the devices of a process side by side.

    Raises:
        UserError: If the processes don't divide the batch.
    """
    by_process: dict[int, list[Any]] = {}
    for device in jax.devices() if devices is None else devices:
        by_process.setdefault(device.process_index, []).append(device)
    processes = len(by_process)
    if batch_size % processes:
        below = batch_size - batch_size % processes
        raise UserError(
            f"a batch of {batch_size} images can't be divided over {processes} processes; set "
            f"--config.train.batch_size={below or processes} or another multiple of {processes}"
        )
    share = batch_size // processes
    fewest = min(len(devices) for devices in by_process.values())
    size = max(n for n in range(1, fewest + 1) if share % n == 0)
    chosen = [device for process in sorted(by_process) for device in by_process[process][:size]]
    return Mesh(np.asarray(chosen), (BATCH_AXIS,))


def whole_mesh() -> Mesh:
    """A mesh of all devices, for batches that are filled up to a multiple of them (`filled_up`)."""
    return batch_mesh(jax.device_count())


def own_device() -> Mesh:
    """A mesh of one device of this process: the others of a run needn't take part."""
    return batch_mesh(1, jax.local_devices()[:1])


def filled_up(batch_size: int, mesh: Mesh) -> int:
    """The next size of a batch that the devices of a mesh divide."""
    return -(-batch_size // mesh.size) * mesh.size


def own_columns(mesh: Mesh, batch_size: int) -> slice:
    """Which images of each batch this process is to bring."""
    processes = sorted({device.process_index for device in mesh.devices.flat})
    share = batch_size // len(processes)
    place = processes.index(jax.process_index())
    return slice(place * share, (place + 1) * share)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same whole array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The given axis of an array divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(*([None] * axis), BATCH_AXIS))


def put(tree: Any, place: NamedSharding | Format) -> Any:
    """Whole arrays, the same in each process, to where they belong; each process fills its own devices."""
    sharding = place.sharding if isinstance(place, Format) else place
    assert sharding is not None
    if sharding.is_fully_addressable:
        return jax.device_put(tree, place)

    def one(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, place, lambda index: array[index])

    return jax.tree.map(one, tree)


def put_own(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays of which each process has its own part (`own_columns`) to where they belong."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), tree)


def gathered(tree: Any, mesh: Mesh) -> Any:
    """A tree as NumPy arrays that are whole in each process; all processes have to ask for it."""
    if any(not leaf.is_fully_addressable and not leaf.is_fully_replicated for leaf in jax.tree.leaves(tree)):
        tree = jax.jit(lambda parts: parts, out_shardings=replicated(mesh))(tree)
    return jax.device_get(tree)
