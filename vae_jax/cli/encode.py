"""`encode`: the latents of images, into a file."""

import functools
from typing import Any

import jax
import numpy as np
from absl import flags

from vae_jax.cli.flags import Flags, define_run
from vae_jax.cli.images import chosen_images, define_images, source_of
from vae_jax.cli.opening import open_for_output
from vae_jax.cli.terminal import say
from vae_jax.data.user_images import NamedImages
from vae_jax.escaping import counted
from vae_jax.evaluation import map_images
from vae_jax.files import replacing
from vae_jax.sharding import filled_up, put, replicated, whole_mesh
from vae_jax.trained import TrainedModel, describe_posterior

_IMAGES_AT_ONCE = 500


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_run(values)
    define_images(values)
    flags.DEFINE_string("output", None, ".npz file; in the run's folder if not given", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    trained, output = open_for_output(values, f"latents_{source_of(values)}", ".npz")
    images = chosen_images(trained, values)
    latents = encode_images(trained, images)
    content: dict[str, Any] = {"names": np.array(images.names), **latents}
    if images.split.labels is not None:
        content["labels"] = images.split.labels
    if images.split.labels is not None and images.class_names:
        content["class_names"] = np.array(images.class_names)
    if trained.context_names:
        content["context"] = images.split.given
    with replacing(output, "choose another --output") as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **content)
    count, size = latents["mean"].shape
    say(f"{counted(count, 'image')}, {size} latents each ({', '.join(latents)}), in {output}")


def encode_images(trained: TrainedModel, images: NamedImages) -> dict[str, np.ndarray]:
    """What q(z|x) is for each image.

    Args:
        trained: The model.
        images: What to encode.

    Returns:
        `mean`, `float32[N, D]`; and `logvar`, where the components of q(z|x) are independent Gaussians.
    """
    model, mesh = trained.model, whole_mesh()
    variables = put(trained.variables, replicated(mesh))
    of_batch = jax.jit(functools.partial(describe_posterior, model))
    return map_images(
        lambda batch, ids: of_batch(variables, batch),
        images.split.images,
        images.split.max_value,
        filled_up(min(_IMAGES_AT_ONCE, len(images.names)), mesh),
        mesh,
        images.split.given if model.context_size else None,
    )
