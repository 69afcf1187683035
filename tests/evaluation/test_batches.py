"""Every image of a split is measured once, whatever the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.evaluation import map_images
from vae_jax.models import Batch
from vae_jax.sharding import batch_mesh

IMAGES = np.arange(23 * 4, dtype=np.uint8).reshape(23, 2, 2, 1)


@jax.jit
def sums(batch: Batch, image_ids: jax.Array) -> dict[str, jax.Array]:
    x, label = batch.x, batch.context
    return {"sum": jnp.sum(x, axis=(1, 2, 3)), "id": image_ids, "pixels": x.reshape(len(x), -1), "label": label}


@pytest.mark.parametrize("batch_size", [1, 5, 23, 64])
def test_no_image_is_lost_or_counted_twice(batch_size: int) -> None:
    labels = np.arange(23, dtype=np.int32) % 10
    done = []
    result = map_images(sums, IMAGES, 255, batch_size, batch_mesh(batch_size), labels, on_batch=done.append)
    assert done == [*range(batch_size, 23, batch_size), 23]
    np.testing.assert_array_equal(result["id"], np.arange(23))
    np.testing.assert_array_equal(result["label"], labels)
    np.testing.assert_allclose(result["sum"], IMAGES.reshape(23, -1).sum(1) / 255, rtol=1e-6)
    np.testing.assert_allclose(result["pixels"], IMAGES.reshape(23, -1) / 255, rtol=1e-6)


def test_one_compiled_function_serves_all_batches() -> None:
    shapes = []

    def remember(batch: Batch, image_ids: jax.Array) -> jax.Array:
        x = batch.x
        shapes.append((x.shape, x.sharding.num_devices))
        return image_ids

    map_images(remember, IMAGES, 255, 8, batch_mesh(8))
    assert shapes == [((8, 2, 2, 1), 8)] * 3
