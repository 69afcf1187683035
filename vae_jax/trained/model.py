"""The one object for a trained model: of a run, of one of its replicas, or of an exported folder."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Float32, Key

from vae_jax import api
from vae_jax.config import Config
from vae_jax.data import Dataset, ImageKind
from vae_jax.errors import UserError, check_count
from vae_jax.evaluation import ImportanceEstimate, estimate_images, map_images
from vae_jax.keys import Stream, stream_key
from vae_jax.memory import check_images_fit
from vae_jax.models import Batch, Model, Variables, check_has_density, decode_flat, flat_latents
from vae_jax.runs import RunFolder
from vae_jax.sharding import filled_up, put, replicated, whole_mesh
from vae_jax.trained.inputs import SeenImages, check_images, check_labels, check_latents

_IMAGES_AT_ONCE = 500


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model and what it can do with any number of images.

    Images are `[N, H, W, C]`, or `[N, H, W]` where C is 1. They are either `uint8` from 0 to `kind.max_value`, as their
    source has them, which are scaled and binarized as in the run's evaluation; or floats in [0, 1], as the model sees
    them. `label` is for a conditional model only: `int[N]`, the class of each image; or `[N, C]` (`[C]` for all alike)
    where the model is told numbers. Images are processed in batches on all devices, and results are NumPy arrays. For
    gradients, or inside `jax.jit`, use `vae_jax.encode(trained.model, trained.variables, x)` and the other functions.

    Attributes:
        folder: The folder it was opened from.
        config: The config it was trained with.
        kind: What images the model is for.
        model: The model, for the functions of `vae_jax`.
        variables: Its variables: the average of the parameters where the run keeps one, of one replica.
        step: The number of steps these parameters were trained for.
        replica: The index of this replica.
        load_data: Reads the data it was trained on, once.
    """

    folder: RunFolder
    config: Config
    kind: ImageKind
    model: Model
    variables: Variables
    step: int
    replica: int
    load_data: Callable[[], Dataset]

    @property
    def data(self) -> Dataset:
        """The data it was trained on. Read at the first use, since the model itself needs no data.

        Raises:
            UserError: If the data can't be found, or its images have another shape than before.
        """
        return self.load_data()

    @functools.cached_property
    def params_digest(self) -> str:
        """The digest of the parameters. A result that names it was measured with them."""
        return digest(self.variables)

    @property
    def suffix(self) -> str:
        """Ends the names of a later replica's files, so that they don't overwrite those of the first replica."""
        return f"_replica{self.replica}" if self.replica else ""

    @property
    def context_names(self) -> tuple[str, ...]:
        """Names of the numbers that the model is told of each image; empty if it is told the class, or nothing."""
        return self.kind.context_names if self.model.context_size else ()

    def encode(self, images: ArrayLike, label: ArrayLike | None = None) -> Float32[np.ndarray, "n d"]:
        """Mean of q(z|x) of each image, or what the posterior has in its place.

        Raises:
            UserError: If the images or labels don't fit this model.
        """
        return self.posterior(images, label)["mean"]

    def posterior(self, images: ArrayLike, label: ArrayLike | None = None) -> dict[str, Float32[np.ndarray, "n d"]]:
        """q(z|x) of each image: `mean`, and `logvar` where it is a Gaussian with independent components.

        Raises:
            UserError: As `encode`.
        """
        function = self._describe_posterior
        return self._map_images(lambda variables, batch, ids: function(variables, batch), self._seen(images, label))

    def decode(self, z: ArrayLike, label: ArrayLike | None = None) -> Float32[np.ndarray, "n *event"]:
        """Mean of p(x|z) for each z: probabilities for binary pixels.

        Raises:
            UserError: If z isn't an array of finite latents for this model, or the labels don't fit it.
        """
        z = check_latents(self.model, z, "z")
        labels = check_labels(self.model, self.kind, label, len(z))
        parts = [slice(start, start + _IMAGES_AT_ONCE) for start in range(0, len(z), _IMAGES_AT_ONCE)]
        return np.concatenate(
            [
                np.asarray(self._decode(self.variables, z[part], None if labels is None else labels[part]))
                for part in parts
            ]
        )

    def reconstruct(self, images: ArrayLike, label: ArrayLike | None = None) -> Float32[np.ndarray, "n *event"]:
        """Mean of p(x|z) at the mean of q(z|x), for each image.

        Raises:
            UserError: As `encode`.
        """
        return self.decode(self.encode(images, label), label)

    def sample(
        self, key: Key[Array, ""], num_samples: int, label: ArrayLike | None = None
    ) -> Float32[np.ndarray, "n *event"]:
        """Images drawn from p(x): z from the prior, then x from p(x|z).

        Args:
            key: Don't use it for anything else.
            num_samples: How many images.
            label: Their classes, for a conditional model; 0, 1, 2, ... over and over if not given. Needed for
                one that is told numbers.

        Raises:
            UserError: If the model is a plain autoencoder, which has no p(z); the number isn't one;
                or the labels don't fit this model.
        """
        check_has_density(self.model)
        check_count("num_samples", num_samples)
        check_images_fit(num_samples, self.kind.image_shape)
        if self.model.context_size and label is None and not self.context_names:
            label = np.arange(num_samples) % self.model.context_size
        labels = check_labels(self.model, self.kind, label, num_samples)
        labels = None if labels is None else jnp.asarray(labels)
        return np.asarray(api.sample(self.model, self.variables, key, num_samples, labels), np.float32)

    def log_likelihood(
        self, images: ArrayLike, num_samples: int | None = None, label: ArrayLike | None = None
    ) -> Float32[np.ndarray, "n"]:
        """log p(x) of each image in nats, by importance sampling; see `importance_estimate` for its errors.

        Raises:
            UserError: As `importance_estimate`.
        """
        return np.asarray(self.importance_estimate(images, num_samples, label).log_likelihood)

    def importance_estimate(
        self, images: ArrayLike, num_samples: int | None = None, label: ArrayLike | None = None
    ) -> ImportanceEstimate:
        """Importance-sampled estimates for each image: log p(x), the bound and its terms, and their errors.

        Args:
            images: The images. For a model of binary pixels, floats have to be 0 or 1.
            num_samples: Samples for each image (K); as in the run's config if not given.
            label: Classes, for a conditional model.

        Returns:
            NumPy arrays `[N]`, in nats where they are log-densities; see `vae_jax.evaluation.ImportanceEstimate`.

        Raises:
            UserError: If q(z|x) has no density, `num_samples` isn't a number of samples, or the images don't fit this
                model.
        """
        check_has_density(self.model)
        settings = self.config.evaluate
        count = settings.num_samples if num_samples is None else num_samples
        check_count("num_samples", count)
        seen = self._seen(images, label)
        if self.model.measure == "binary" and np.any((seen.images != 0) & (seen.images != 1)):
            raise UserError(
                "this model is for binary pixels, and log p(x) needs floats that are 0 or 1; give uint8, which is "
                "binarized, or round the floats"
            )
        key = stream_key(jax.random.key(self.config.data.seed), Stream.EVALUATION)
        return estimate_images(
            self.model, self.variables, seen.images, seen.max_value, key, count, settings.memory_mb, seen.labels
        )

    @functools.cached_property
    def _describe_posterior(self) -> Callable[..., dict[str, Array]]:
        return jax.jit(functools.partial(describe_posterior, self.model))

    @functools.cached_property
    def _decode(self) -> Callable[..., Array]:
        return jax.jit(lambda variables, z, context: decode_flat(self.model, variables, z, context).mean())

    def _seen(self, images: ArrayLike, label: ArrayLike | None) -> SeenImages:
        """Images and labels, checked, as the model sees them."""
        return check_images(self.model, self.kind, self.config.data, images, label)

    def _map_images(self, function: Callable[..., Any], seen: SeenImages) -> Any:
        """Applies `(variables, batch, ids) -> tree` to all images, on all devices."""
        mesh = whole_mesh()
        function = functools.partial(function, put(self.variables, replicated(mesh)))
        batch_size = filled_up(min(_IMAGES_AT_ONCE, len(seen.images)), mesh)
        return map_images(function, seen.images, seen.max_value, batch_size, mesh, seen.labels)


def describe_posterior(model: Model, variables: Variables, batch: Batch) -> dict[str, Float[Array, "b d"]]:
    """What is known of q(z|x) in closed form, for each latent.

    Returns:
        `mean`, of q(z|x) or what the posterior has in its place; and `logvar`, the log of the variances, where q(z|x)
        is a Gaussian with independent components. A flow has no closed form for its variances.
    """
    q = model.encode(variables, batch)
    described = {"mean": flat_latents(model.point(variables, q), model.latents)}
    if "diagonal_gaussian" in model.traits:
        described["logvar"] = flat_latents(q.logvar, model.latents)
    return described


def digest(variables: Variables) -> str:
    """Hexadecimal digest of parameters, bit by bit (SHA-256, first 16 digits)."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(variables["params"])):
        total.update(jax.tree_util.keystr(path).encode())
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()[:16]
