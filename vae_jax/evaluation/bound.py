"""The ELBO of each image of a split, as it is watched during training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.models import Batch, Model, Variables, flat_latents
from vae_jax.noise import normal_per_image
from vae_jax.objectives import ElboTerms, elbo_terms
from vae_jax.shapes import ImageIds, RandomKey


class Watched(NamedTuple):
    """What is watched of each image; with replicas, these come after the images.

    Attributes:
        terms: Of the bound, in nats.
        means: Of q(z|x).
    """

    terms: ElboTerms
    means: Float[Array, "b *replicas d"]


def make_bound(
    model: Model, num_samples: int, has_replicas: bool = False, unroll: bool = False
) -> Callable[..., Watched]:
    """A compiled function that measures the bound.

    Args:
        model: The model.
        num_samples: Samples of z per image.
        has_replicas: Whether parameters have an axis for replicas in front, all of which are measured at once.
        unroll: Whether to measure one after the other; see `replicate`.

    Returns:
        `(variables, batch, image_ids, key) -> Watched`. The noise is a function of (key, image) alone, the
        same for all replicas; the KL is in closed form where there is one.
    """

    def bound(variables: Variables, batch: Batch, image_ids: ImageIds, key: RandomKey) -> Watched:
        noise = normal_per_image(key, image_ids, jnp.arange(num_samples), model.noise_size)
        q = model.encode(variables, batch)
        terms = elbo_terms(model.joint(variables, batch, q, noise=noise))
        return Watched(terms, flat_latents(model.point(variables, q), model.latents))

    def one_by_one(variables: Variables, *others: Any) -> Watched:
        count = jax.tree.leaves(variables)[0].shape[0]
        of = [jax.tree.map(lambda leaf, index=index: leaf[index], variables) for index in range(count)]
        each = [bound(one, *others) for one in of]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *each)

    if has_replicas and unroll:
        return jax.jit(one_by_one)
    if has_replicas:
        return jax.jit(jax.vmap(bound, in_axes=(0, None, None, None), out_axes=1))
    return jax.jit(bound)
