"""A trained model for use from Python, from its run or from an exported folder."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float32, Int, Key, UInt8

from vae_jax import api
from vae_jax.config import Config
from vae_jax.data import ImageKind
from vae_jax.data.dataset import OTHER_IMAGES, Split, binarized
from vae_jax.errors import UserError, check_count
from vae_jax.evaluation import ImportanceEstimate, make_importance_estimate, map_images, samples_at_once
from vae_jax.export import describe_posterior, is_export, read_export
from vae_jax.keys import Stream, stream_key
from vae_jax.memory import check_images_fit
from vae_jax.printable import one_line
from vae_jax.sharding import filled_up, put, replicated, whole_mesh
from vae_jax.trained import open_run
from vae_jax.vae import VAE, Params, apply

_IMAGES_AT_ONCE = 500
_MEASURED_AT_ONCE = 100


class _Seen(NamedTuple):
    """Images as the model sees them, once they are divided by `max_value`; and their classes."""

    images: UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n h w c"]
    max_value: int
    labels: Int[np.ndarray, "n"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A trained model: what it was made of, and what it can do with any number of images.

    Images are `[N, H, W, C]`, or `[N, H, W]` where C is 1: either `uint8` as their source has them, from 0 to
    `kind.max_value`, which are scaled and binarized as the run's evaluation does with images that are none of its data
    set's; or floats as the model sees them, in [0, 1]. `label` is `int[N]`, the class of each, for a conditional model
    only. Work is done in batches, on all devices, and comes back as NumPy arrays. For gradients, or inside `jax.jit`,
    use `vae_jax.encode(loaded.model, loaded.params, x)` and the like.

    Attributes:
        config: As it was trained.
        kind: What images the model is for.
        model: The model, for the functions of `vae_jax`.
        params: Its parameters.
        step: Steps these parameters have seen.
    """

    config: Config
    kind: ImageKind
    model: VAE
    params: Params
    step: int

    def encode(self, images: ArrayLike, label: ArrayLike | None = None) -> Float32[np.ndarray, "n d"]:
        """Mean of q(z|x) of each image, or what the posterior has in its place.

        Raises:
            UserError: If these are no images, or no labels, for this model.
        """
        return self.posterior(images, label)["mean"]

    def posterior(self, images: ArrayLike, label: ArrayLike | None = None) -> dict[str, Float32[np.ndarray, "n d"]]:
        """q(z|x) of each image: `mean`, and `logvar` where it is a Gaussian with independent components.

        Raises:
            UserError: As `encode`.
        """
        return self._of_images(self._describe, self._seen(images, label), _IMAGES_AT_ONCE)

    def decode(self, z: ArrayLike, label: ArrayLike | None = None) -> Float32[np.ndarray, "n h w c"]:
        """Mean of p(x|z) for each z: probabilities for binary pixels.

        Raises:
            UserError: If z is no array of finite latents for this model, or the labels aren't.
        """
        z = _array(z, "z").astype(np.float32)
        latents = self.model.prior.latents
        if z.ndim != 2 or z.shape[1] != latents or not len(z) or not np.all(np.isfinite(z)):
            raise UserError(f"z has shape {z.shape} but must be finite numbers [N, {latents}], N at least 1")
        labels = self._labels(label, len(z))
        starts = range(0, len(z), _IMAGES_AT_ONCE)
        parts = [slice(start, start + _IMAGES_AT_ONCE) for start in starts]
        return np.concatenate(
            [np.asarray(self._decode(z[part], None if labels is None else labels[part])) for part in parts]
        )

    def reconstruct(self, images: ArrayLike, label: ArrayLike | None = None) -> Float32[np.ndarray, "n h w c"]:
        """Mean of p(x|z) at the mean of q(z|x), for each image.

        Raises:
            UserError: As `encode`.
        """
        return self.decode(self.encode(images, label), label)

    def sample(
        self, key: Key[Array, ""], num_samples: int, label: ArrayLike | None = None
    ) -> Float32[np.ndarray, "n h w c"]:
        """Images drawn from p(x): z from the prior, then x from p(x|z).

        Args:
            key: Consumed.
            num_samples: How many.
            label: Their classes, for a conditional model; each in its turn if not given.

        Raises:
            UserError: If it is a plain autoencoder, which has no p(z); there is no such key or number; or the labels
                aren't for this model.
        """
        if not self.model.posterior.has_density:
            raise UserError("a plain autoencoder has no distribution of z to sample from; decode z of your own")
        if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape:
            raise UserError(f"key is {one_line(repr(key), 60)} but must be a key, e.g. jax.random.key(0)")
        check_count("num_samples", num_samples)
        check_images_fit(num_samples, self.kind.image_shape)
        if self.model.num_classes and label is None:
            label = np.arange(num_samples) % self.model.num_classes
        labels = self._labels(label, num_samples)
        labels = None if labels is None else jnp.asarray(labels)
        return np.asarray(api.sample(self.model, self.params, key, num_samples, labels), np.float32)

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
        """What importance samples say of each image: log p(x), the bound and its terms, and how good the estimate is.

        Args:
            images: What to measure. Where the model is one of binary pixels, floats have to be 0 or 1.
            num_samples: Samples for each image (K); as in the run's config if not given.
            label: Classes, for a conditional model.

        Returns:
            NumPy arrays `[N]`, in nats where they are log-densities; see `vae_jax.evaluation.ImportanceEstimate`.

        Raises:
            UserError: If q(z|x) has no density, there is no such number of samples, or these are no images for this
                model.
        """
        if not self.model.posterior.has_density:
            raise UserError("this model has no log p(x) to estimate: its q(z|x) has no density")
        settings = self.config.evaluate
        count = settings.num_samples if num_samples is None else num_samples
        check_count("num_samples", count)
        seen = self._seen(images, label)
        if self.model.likelihood.base_measure == "binary" and np.any((seen.images != 0) & (seen.images != 1)):
            raise UserError(
                "log p(x) of this model is one of binary pixels, and these floats are others than 0 and 1; give uint8, "
                "which is binarized, or round them"
            )
        batch_size = filled_up(min(_MEASURED_AT_ONCE, len(seen.images)), whole_mesh())
        chunk = samples_at_once(self.model, self.kind.image_shape, batch_size, settings.memory_mb)
        function = make_importance_estimate(self.model, count, min(chunk, count))
        key = stream_key(jax.random.key(self.config.data.seed), Stream.EVALUATION)
        return self._of_images(
            lambda params, x, label, ids: function(params, x, ids, key, label), seen, _MEASURED_AT_ONCE
        )

    @functools.cached_property
    def _describe(self) -> Callable[..., dict[str, Array]]:
        return jax.jit(lambda params, x, label, ids: describe_posterior(self.model, params, x, label))

    @functools.cached_property
    def _decode(self) -> Callable[..., Array]:
        decode = jax.jit(lambda params, z, label: apply(self.model, params, "decode_mean", z, label))
        return functools.partial(decode, self.params)

    def _of_images(self, function: Callable[..., Any], seen: _Seen, at_once: int) -> Any:
        """Applies `(params, x, label, ids) -> tree` to all images, on all devices."""
        mesh = whole_mesh()
        params = put(self.params, replicated(mesh))
        return map_images(
            lambda x, ids, label: function(params, x, label, ids),
            seen.images,
            seen.max_value,
            filled_up(min(at_once, len(seen.images)), mesh),
            mesh,
            seen.labels,
        )

    def _seen(self, images: ArrayLike, label: ArrayLike | None) -> _Seen:
        """Images and labels, checked, as the model sees them.

        Raises:
            UserError: If they are none for this model.
        """
        pixels = _array(images, "images")
        if pixels.ndim == 3 and self.kind.image_shape[-1] == 1:
            pixels = pixels[..., np.newaxis]
        if pixels.shape[1:] != self.kind.image_shape or not len(pixels):
            shape = ", ".join(map(str, self.kind.image_shape))
            raise UserError(f"images have shape {np.shape(images)} but must be [N, {shape}], N at least 1")
        labels = self._labels(label, len(pixels))
        if pixels.dtype == np.uint8:
            if pixels.max() > self.kind.max_value:
                raise UserError(
                    f"a pixel is {pixels.max()}, but this model's images have levels from 0 to {self.kind.max_value}; "
                    "bring them to these, or give floats in [0, 1]"
                )
            data = self.config.data
            split = binarized(Split(pixels, labels, self.kind.max_value), data.binarization, data.seed, OTHER_IMAGES)
            return _Seen(np.asarray(split.images), split.max_value, labels)
        if not jnp.issubdtype(pixels.dtype, jnp.floating):
            raise UserError(f"images are {pixels.dtype} but must be uint8, or floats in [0, 1]")
        pixels = pixels.astype(np.float32)
        if not np.all((pixels >= 0) & (pixels <= 1)):
            raise UserError("images of floats must be in [0, 1]; divide them by their largest level, or give uint8")
        return _Seen(pixels, 1, labels)

    def _labels(self, label: ArrayLike | None, count: int) -> Int[np.ndarray, "n"] | None:
        classes = self.model.num_classes
        if not classes:
            if label is not None:
                raise UserError("this model isn't conditional: leave label out")
            return None
        if label is None:
            raise UserError(f"this model is conditional: give label, a class from 0 to {classes - 1} for each")
        labels = _array(label, "label")
        whole = np.issubdtype(labels.dtype, np.integer)
        if not whole or labels.shape != (count,) or labels.min() < 0 or labels.max() >= classes:
            raise UserError(f"label must be {count} whole numbers from 0 to {classes - 1}")
        return labels.astype(np.int32)


def _array(values: ArrayLike, name: str) -> np.ndarray:
    """What was given, as an array of real numbers.

    Raises:
        UserError: If it is none.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{name} is no array of numbers ({one_line(error)}); give one in which all rows are alike"
        ) from error
    if np.ma.isMaskedArray(values):
        raise UserError(f"{name} is a masked array, whose masks would be passed over; fill it first")
    if array.dtype.kind not in "buif" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} is an array of {array.dtype} but must be one of real numbers")
    return array


def load(
    path: str | pathlib.Path, *, checkpoint: str | int = "latest", replica: int = 0, allow_custom: bool = False
) -> LoadedModel:
    """Opens the folder of a run, or one that `export` made.

    Neither what it was trained on nor an accelerator has to be there. Nothing in the folder is unpickled or run; its
    files are verified by their checksums.

    >>> import contextlib, io, tempfile, jax, vae_jax
    >>> from vae_jax.cli import main
    >>> folder = tempfile.TemporaryDirectory()
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     main(["train", f"--workdir={folder.name}/run", "--config.train.num_steps=20"])
    ...     main(["export", f"--workdir={folder.name}/run", f"--output={folder.name}/exported"])
    >>> loaded = vae_jax.load(f"{folder.name}/exported")
    >>> images = vae_jax.load_digits(test_fraction=0.2, seed=0).test_images
    >>> loaded.encode(images).shape
    (359, 10)
    >>> loaded.reconstruct(images).shape
    (359, 8, 8, 1)
    >>> loaded.sample(jax.random.key(0), 3).shape
    (3, 8, 8, 1)
    >>> bool((vae_jax.load(f"{folder.name}/run").encode(images) == loaded.encode(images)).all())
    True
    >>> folder.cleanup()

    Args:
        path: The folder.
        checkpoint: Of a run: a step, `best` or `latest`.
        replica: Of a run: which of the models that were trained at once.
        allow_custom: Whether parts named `package.module:Name` may be imported. That runs their code, so it is to be
            allowed only for a folder from somebody you trust.

    Raises:
        UserError: If there is no such folder, checkpoint or replica, it is damaged, or it needs parts that may not be
            imported.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"path is {one_line(repr(path), 60)} but must be a folder, e.g. 'runs/digits'")
    try:
        folder = pathlib.Path(path).expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        # Names that are too long, or of a user who isn't there.
        raise UserError(
            f"{one_line(repr(path), 60)} can't be a folder ({one_line(error, 60)}); give another one"
        ) from error
    if type(replica) is not int:
        raise UserError(f"replica is {one_line(repr(replica), 60)} but must be a whole number")
    if not is_folder:
        what = "is a file" if folder.exists() else "isn't there"
        raise UserError(f"'{path}' {what}; give the folder of a run, or one that export made")
    if is_export(folder):
        if str(checkpoint) != "latest" or replica:
            raise UserError(f"'{path}' was exported and holds one model: leave checkpoint and replica out")
        found = read_export(folder, allow_custom)
        return LoadedModel(found.config, found.kind, found.model, found.params, found.step)
    trained = open_run(str(folder), str(checkpoint), replica, allow_custom)
    return LoadedModel(trained.config, trained.kind, trained.model, trained.params, trained.step)
