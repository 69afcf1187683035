"""Images that are brought to a trained model: from a folder, an archive or a single file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae_jax.data.archives import read_arrays
from vae_jax.data.dataset import ImageKind, Labels, Split
from vae_jax.data.decoding import Sizing, decoded
from vae_jax.data.folder import EXTENSIONS, class_of, pictures_below
from vae_jax.data.npz import check_any, checked_labels
from vae_jax.errors import UserError
from vae_jax.printable import one_line, printable


@dataclasses.dataclass(frozen=True)
class NamedImages:
    """Images, and what to call each.

    Attributes:
        names: File names, harmless to print, or numbers.
        split: The images, as the model sees them.
        class_names: What the labels stand for; empty where nobody says.
    """

    names: Sequence[str]
    split: Split
    class_names: tuple[str, ...] = ()


def read_images(path: str, kind: ImageKind, fit: str = "crop") -> tuple[NamedImages, list[str]]:
    """Reads images and brings them to the form of a model's.

    Args:
        path: A folder, with folders in it or not; an `.npz` with `images` and, optionally, `labels`; or one picture.
            Where all pictures of a folder lie in folders that are named as the model's classes are, these are labels.
        kind: What the model is for. Pictures of another size are brought to its own where the model is for square
            images; colours are dropped for a model of grey images, and grey repeated for one of colours.
        fit: As `Sizing.fit`.

    Returns:
        The images, grey levels from 0 to 255; and a line about each file that can't be read.

    Raises:
        UserError: If nothing there can be read, or an archive holds images of another shape.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        try:
            files = sorted(pictures_below(place))
        except OSError as error:
            raise UserError(f"'{path}' can't be read: {error}; make it readable or set --input to images") from error
        if not files:
            raise UserError(f"there are no images in '{path}' or below; put some there ({', '.join(EXTENSIONS)})")
        return _read_files(place, files, kind, fit)
    if not place.is_file():
        raise UserError(f"there is no file or folder '{path}'; set --input to images")
    if place.suffix == ".npz":
        return _read_archive(path, kind), []
    return _read_files(place.parent, [place.name], kind, fit)


def _read_files(root: Path, files: Sequence[str], kind: ImageKind, fit: str) -> tuple[NamedImages, list[str]]:
    height, width, channels = kind.image_shape
    sizing = Sizing(height if height == width else 0, fit)
    names, images, wrong = [], [], []
    for name in files:
        try:
            pixels = decoded(root / name, channels == 1)
        except Exception as error:
            # Pillow raises whatever comes to hand where a file is damaged.
            wrong.append(f"{printable(name)} can't be read as an image ({one_line(error)})")
            continue
        pixels = sizing(pixels)
        if pixels.shape != kind.image_shape:
            wrong.append(
                f"{printable(name)} is {_size(pixels.shape)}, the model's images are {_size(kind.image_shape)}"
            )
            continue
        names.append(printable(name))
        images.append(pixels)
    if not images:
        none = f"none of the {len(files)} files can be used: " if len(files) > 1 else ""
        raise UserError(f"{none}{wrong[0]}; set --input to other images")
    class_names, labels = _classes(names, kind)
    return NamedImages(names, Split(np.stack(images), labels, 255), class_names), wrong


def _classes(names: Sequence[str], kind: ImageKind) -> tuple[tuple[str, ...], Labels | None]:
    """The model's classes and which of them each picture is of, by its folder; nothing unless that holds for all."""
    numbers = {kind.class_name(label): label for label in range(kind.num_classes)}
    found = [numbers.get(class_of(name), -1) for name in names]
    if -1 in found:
        return (), None
    return tuple(numbers), np.array(found, np.int32)


def _read_archive(path: str, kind: ImageKind) -> NamedImages:
    mend = "write it with np.savez(path, images=...)"
    found = read_arrays(path, ("images", "labels"), "an .npz with images", mend)
    if "images" not in found.arrays:
        raise UserError(f"'{path}' holds {found.listed()}, and no 'images'; {mend}")
    images = found.arrays["images"]
    labels = checked_labels(path, "labels", found.arrays.get("labels"), len(images)) if images.ndim else None
    check_any(path, "images", images)
    images = images[..., np.newaxis] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.shape[1:] != kind.image_shape:
        raise UserError(
            f"'{path}': images are {images.dtype} of shape {images.shape}, but this model needs uint8 of shape "
            f"(N, {', '.join(map(str, kind.image_shape))})"
        )
    return NamedImages([str(number) for number in range(len(images))], Split(images, labels, 255))


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape)
