"""What is measured: a model, its parameters, and images to measure it on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.config import DiagnoseConfig
from vae_jax.data import Dataset, Split
from vae_jax.data.dataset import Given
from vae_jax.evaluation import has_missing, map_images
from vae_jax.models import Batch, Model, Variables
from vae_jax.sharding import filled_up, replicated, whole_mesh

# Rows of latents that are decoded at a time: few enough for the caches of a CPU.
_ROWS_AT_ONCE = 1600


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model and the images of one split, as the model sees them.

    Attributes:
        model: The model.
        variables: Its variables.
        data: What it was trained on.
        split: The images it is measured on.
        key: What all noise comes from.
        settings: What each question may cost.
        is_training: Whether these are the training images themselves, which can't be compared with the training images.
    """

    model: Model
    variables: Variables
    data: Dataset
    split: Split
    key: jax.Array
    settings: DiagnoseConfig
    is_training: bool = False

    def some(self, num_images: int) -> Split:
        """So many images, evenly spread over the split: its first images may be easier than its last."""
        return spread(self.split, num_images)

    def map(self, function: Callable[..., Any], part: Split, rows_per_image: int, *extra: Any) -> Any:
        """`function(variables, batch, ids, *extra)` of all images of a part, in batches that fit the caches.

        Args:
            function: Compiled; its tree has arrays `[B, ...]`.
            part: The images.
            rows_per_image: Latents that it decodes for each image at a time.
            extra: What comes after the ids; the same for all images.
        """
        mesh = whole_mesh()
        batch_size = filled_up(max(1, min(len(part.images), _ROWS_AT_ONCE // rows_per_image)), mesh)
        variables, extra = jax.device_put((self.variables, extra), replicated(mesh))
        return map_images(
            lambda batch, ids: function(variables, batch, ids, *extra),
            part.images,
            part.max_value,
            batch_size,
            mesh,
            self.given(part),
        )

    def given(self, part: Split) -> Given:
        """Class or context of each image, if the model wants to know it."""
        return part.given if self.model.context_size else None

    def batch(self, part: Split) -> Batch:
        """All images of a part at once, on the device."""
        batch = Batch(*jax.tree.map(jnp.asarray, (part.pixels, None, self.given(part))))
        return batch.masked() if has_missing(part.images) else batch

    def stage_key(self, stage: int) -> jax.Array:
        """A key of its own for each question."""
        return jax.random.fold_in(self.key, stage)


def spread(part: Split, num_images: int) -> Split:
    """So many images of a part, evenly spread; all, if there are no more."""
    chosen = spread_indices(len(part.images), num_images)
    return dataclasses.replace(part.some(chosen), images=part.images[chosen])


def spread_indices(total: int, count: int) -> np.ndarray:
    """So many of `range(total)`, evenly spread; all, if there are no more."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int)
