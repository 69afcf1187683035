"""Images from the user for a trained model: from a folder, an archive or a single file."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae_jax.data.archives import read_arrays
from vae_jax.data.dataset import ImageKind, Labels, Split
from vae_jax.data.decoding import Sizing, decoded, size_text
from vae_jax.data.folder import EXTENSIONS, class_of, pictures_below
from vae_jax.data.npz import BESIDE, NAMES, WRITE_IT, checked_values
from vae_jax.errors import UserError
from vae_jax.escaping import one_line, printable


@dataclasses.dataclass(frozen=True)
class NamedImages:
    """Images with a name for each.

    Attributes:
        names: File names, safe to print, or numbers.
        split: The images, as the model sees them.
        class_names: Names of the classes, if they are known.
    """

    names: Sequence[str]
    split: Split
    class_names: tuple[str, ...] = ()


def read_images(path: str, kind: ImageKind, fit: str = "crop") -> tuple[NamedImages, list[str]]:
    """Reads images and brings them to the size and colours of a model's.

    Args:
        path: A folder of pictures, with or without subfolders; an `.npz` with `images` and, optionally, `labels` and
            `context`; or one picture. If all pictures of a folder lie in subfolders named after the model's classes,
            these are the labels.
        kind: What the model was made for. Pictures of another size are resized if the model's images are square;
            colours are dropped for a model of grey images, and grey is repeated for a model of colours.
        fit: As `Sizing.fit`.

    Returns:
        The images, with values from 0 to 255; and one line about each file that can't be used.

    Raises:
        UserError: If nothing there can be used, or an archive holds images of another shape.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(pictures_below(place))
        if not files:
            raise UserError(f"there are no images in '{path}' or below; put some there ({', '.join(EXTENSIONS)})")
        return _read_files(place, files, kind, fit)
    if not place.is_file():
        raise UserError(f"'{path}' not found; set --input to a file or folder")
    if place.suffix == ".npz":
        return _read_archive(path, kind), []
    return _read_files(place.parent, [place.name], kind, fit)


def _read_files(root: Path, files: Sequence[str], kind: ImageKind, fit: str) -> tuple[NamedImages, list[str]]:
    if len(kind.image_shape) != 3:
        raise UserError("this model is for rows of numbers, not for pictures; set --input to an .npz with rows")
    height, width, channels = kind.image_shape
    sizing = Sizing(height if height == width else 0, fit)
    names, images, problems = [], [], []
    for name in files:
        try:
            pixels = sizing(decoded(root / name, channels == 1))
        except Exception as error:
            # Pillow raises many kinds of exceptions for a damaged file.
            problems.append(f"{printable(name)} can't be read as an image ({one_line(error)})")
            continue
        if pixels.shape != kind.image_shape:
            sizes = f"is {size_text(pixels.shape)}, the model's images are {size_text(kind.image_shape)}"
            problems.append(f"{printable(name)} {sizes}")
            continue
        names.append(printable(name))
        images.append(pixels)
    if not images:
        none = f"none of the {len(files)} files can be used: " if len(files) > 1 else ""
        raise UserError(f"{none}{problems[0]}; set --input to other images")
    class_names, labels = _classes(names, kind)
    return NamedImages(names, Split(np.stack(images), labels, 255), class_names), problems


def _classes(names: Sequence[str], kind: ImageKind) -> tuple[tuple[str, ...], Labels | None]:
    """The model's class names and the class of each picture by its folder; nothing if a folder isn't a class."""
    numbers = {kind.class_name(label): label for label in range(kind.num_classes)}
    found = [numbers.get(class_of(name), -1) for name in names]
    return ((), None) if -1 in found else (tuple(numbers), np.array(found, np.int32))


def _read_archive(path: str, kind: ImageKind) -> NamedImages:
    arrays = read_arrays(path, NAMES, BESIDE, "an .npz with images", WRITE_IT)
    found = checked_values(path, arrays, "images" if "images" in arrays else "rows")
    split = found.split
    if (found.kind == "levels") != (kind.values == "levels"):
        raise UserError(f"'{path}' has {found.kind} values, but this model is for {kind.values}; bring others")
    if split.images.shape[1:] != kind.image_shape:
        raise UserError(
            f"'{path}': images have shape {split.images.shape}, but this model needs (N, "
            f"{', '.join(map(str, kind.image_shape))})"
        )
    return NamedImages([str(number) for number in range(len(split.images))], split)
