"""The batch is divided over as many of the eight simulated devices as divide it evenly."""

import jax
import jax.numpy as jnp
import pytest

from vae_jax.sharding import batch_mesh, replicated, split_batch


@pytest.mark.parametrize(("batch_size", "size"), [(64, 8), (12, 6), (100, 5), (7, 7), (11, 1), (1, 1)])
def test_mesh_takes_as_many_devices_as_divide_the_batch(batch_size: int, size: int) -> None:
    assert len(jax.devices()) == 8
    mesh = batch_mesh(batch_size)
    assert (mesh.axis_names, mesh.size) == (("batch",), size)


def test_whole_copy_on_each_device() -> None:
    array = jax.device_put(jnp.arange(16).reshape(8, 2), replicated(batch_mesh(8)))
    assert [shard.data.shape for shard in array.addressable_shards] == [(8, 2)] * 8


@pytest.mark.parametrize(("axis", "shape"), [(0, (1, 16)), (1, (8, 2))])
def test_one_axis_is_divided(axis: int, shape: tuple[int, int]) -> None:
    array = jax.device_put(jnp.zeros((8, 16)), split_batch(batch_mesh(8), axis))
    assert [shard.data.shape for shard in array.addressable_shards] == [shape] * 8
