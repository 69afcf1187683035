"""A folder of image files as a data set."""

import concurrent.futures
import dataclasses
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from vae_jax.data import cache
from vae_jax.data.archives import check_memory
from vae_jax.data.contexts import read_contexts
from vae_jax.data.dataset import Dataset, Labels, take_labels
from vae_jax.data.decoding import Sizing, check_size, decoded
from vae_jax.data.dividing import split_indices
from vae_jax.data.streamed import Images, StreamedImages, take
from vae_jax.errors import DataError, UserError
from vae_jax.escaping import one_line, printable

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
UNREADABLE = ("refuse", "skip")
_MOST_NAMES = 20
_TEST_FOLDERS = ("test", "val", "validation")


def load_folder(
    path: str,
    test_fraction: float,
    seed: int,
    sizing: Sizing,
    resident_mb: int,
    unreadable: str = "refuse",
    labels: str = "",
    context: str = "",
) -> Dataset:
    """The images of a folder, in memory if they fit, else in their files.

    If there is a folder `train/`, with one of `test/`, `val/` and `validation/`, these are the parts; otherwise all
    images are divided. Subfolders are searched at any depth. If the images lie in subfolders, the first folder in an
    image's relative path is its class, and labels number the sorted class names from 0. Images are grey if the first
    one is, and otherwise have three channels.

    Args:
        path: The folder.
        test_fraction: Share of the images held out for testing if there are no parts.
        seed: Seed of that division.
        sizing: The size that images are brought to.
        resident_mb: How much memory the decoded images may take, in MiB.
        unreadable: What to do about a file that can't be read: `refuse`, or `skip` it and name it on stderr.
        labels: A CSV file with numbers that a conditional model is told of each image; see `read_contexts`.
        context: Names of its columns, with commas between; all if empty.

    Returns:
        The data set; largest pixel value 255.

    Raises:
        UserError: If there is no such folder, no image in it, one that can't be read, or they differ in size.
    """
    if not path:
        raise DataError("data.source is 'folder' but no folder is named", "add --config.data.dir=FOLDER")
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"folder '{path}' not found", "set --config.data.dir to one with images")
    parts = _part_folders(root)
    names = [f"{part}{name}" for part in parts for name in _image_names(root / part)]
    if unreadable == "skip":
        names = _readable(root, names)
    counts = [sum(name.startswith(part) for name in names) for part in parts]
    if not all(counts):
        empty = root / parts[counts.index(0)]
        raise DataError(
            f"there are no images in '{empty}' or below ({', '.join(EXTENSIONS)})",
            "put some there, or set --config.data.dir to another folder",
        )
    height, width, channels = _decoded(str(root), names[0], None, sizing).shape
    reader = FolderReader(str(root), tuple(names), sizing, (height, width, channels))
    files = cache.files_fingerprint(root, names, str(sizing) or "0")
    images = _in_memory_if_it_fits(root, files, StreamedImages(reader, np.arange(len(names))), resident_mb)
    classes, class_names = _labels(root, parts, names)
    contexts, context_names = read_contexts(labels, names, context) if labels else (None, ())
    train, test = (
        split_indices(len(names), test_fraction, seed)
        if len(parts) == 1
        else (np.arange(counts[0]), np.arange(counts[0], len(names)))
    )
    told = b"" if contexts is None else contexts.tobytes()
    return Dataset(
        name=root.name,
        train_images=take(images, train),
        test_images=take(images, test),
        train_labels=take_labels(classes, train),
        test_labels=take_labels(classes, test),
        max_value=255,
        fingerprint=hashlib.sha256(files.encode() + train.tobytes() + test.tobytes() + told).hexdigest()[:16],
        class_names=class_names,
        train_context=take_labels(contexts, train),
        test_context=take_labels(contexts, test),
        context_names=context_names,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FolderReader:
    """Decodes image files.

    Attributes:
        root: The folder that names are relative to.
        names: The files.
        sizing: As in `load_folder`.
        image_shape: Height, width and channels of each image.
    """

    root: str
    names: tuple[str, ...]
    sizing: Sizing
    image_shape: tuple[int, int, int]

    def read(self, indices: Int[np.ndarray, "n"]) -> Iterator[UInt8[np.ndarray, "h w c"]]:
        """The images with these numbers.

        Raises:
            UserError: If a file can't be read or has another size than the first.
        """
        for index in indices.tolist():
            pixels = _decoded(self.root, self.names[index], self.image_shape[-1] == 1, self.sizing)
            check_size(pixels.shape, self.image_shape, f"'{os.path.join(self.root, self.names[index])}'")
            yield pixels


def _readable(root: Path, names: Sequence[str]) -> list[str]:
    """The files that can be decoded; the others are named on stderr. What was found is cached."""

    def is_readable(name: str) -> bool:
        try:
            decoded(root / name, None)
        except Exception:
            # Pillow raises many kinds of exceptions for a damaged file.
            return False
        return True

    def try_all() -> cache.Arrays:
        with concurrent.futures.ThreadPoolExecutor() as threads:
            return {"readable": np.fromiter(threads.map(is_readable, names), bool, len(names))}

    key = _cache_key("readable", root, cache.files_fingerprint(root, names, "0"))
    flags = cache.load_or_make(key, ["readable"], try_all)["readable"]
    bad = [printable(name) for name, good in zip(names, flags, strict=True) if not good]
    if bad:
        shown = ", ".join(bad[:_MOST_NAMES]) + (", ..." if len(bad) > _MOST_NAMES else "")
        print(f"{len(bad)} of {len(names)} files can't be read as images and are left out: {shown}", file=sys.stderr)
    return [name for name, good in zip(names, flags, strict=True) if good]


def _part_folders(root: Path) -> list[str]:
    """`train/` and the folder of test images, or one folder that will be divided; as prefixes of names."""
    if not (root / "train").is_dir():
        return [""]
    test = [name for name in _TEST_FOLDERS if (root / name).is_dir()]
    return ["train/", f"{test[0]}/"] if test else ["train/"]


def _image_names(folder: Path) -> list[str]:
    """Images below a folder; either all of them lie in subfolders or none."""
    try:
        names = pictures_below(folder)
    except OSError as error:
        raise DataError(f"'{folder}' can't be read: {error}", "make it readable or set --config.data.dir") from error
    here = [name for name in names if not class_of(name)]
    below = [name for name in names if class_of(name)]
    if here and below:
        raise UserError(
            f"'{folder}' has images both directly in it ({here[0]}) and in folders of classes ({below[0]}); move one "
            "kind away"
        )
    return names


def pictures_below(folder: Path) -> list[str]:
    """Names of the pictures in a folder and its subfolders, relative to it; hidden files and folders are left out.

    The pictures of a folder come before those of its subfolders, both sorted by name. Links are followed, but not back
    to a folder that they lie in.

    Raises:
        OSError: If a folder can't be read.
    """
    names = []
    for path, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        above = {os.path.realpath(place) for place in (path, *Path(path).parents)}
        inside = {name: os.path.realpath(os.path.join(path, name)) for name in sorted(folders) if name[0] != "."}
        folders[:] = [name for name, target in inside.items() if target not in above]
        # Broken links, pipes and devices count, so that they are reported as files that can't be read.
        pictures = sorted(name for name in files if name[0] != "." and name.lower().endswith(EXTENSIONS))
        names += (os.path.relpath(os.path.join(path, name), folder) for name in pictures)
    return names


def _raise(error: OSError) -> None:
    raise error


def class_of(name: str) -> str:
    """The first folder in a picture's relative name; empty if there is none.

    >>> class_of("cat/tabby/1.png"), class_of("1.png")
    ('cat', '')
    """
    return name.partition("/")[0] if "/" in name else ""


def _labels(root: Path, parts: Iterable[str], names: Sequence[str]) -> tuple[Labels | None, tuple[str, ...]]:
    """The class of each image by its folder, and the class names; none if there is one class only."""
    classes = [class_of(name.removeprefix(next(part for part in parts if name.startswith(part)))) for name in names]
    if any(classes) and not all(classes):
        raise UserError(
            f"'{root}' has folders of classes in one of {' and '.join(parts)} only; have them in both or in neither"
        )
    numbers = {name: number for number, name in enumerate(sorted(set(classes)))}
    if len(numbers) < 2:
        return None, ()
    return np.array([numbers[name] for name in classes], np.int32), tuple(map(printable, numbers))


def _decoded(root: str, name: str, grey: bool | None, sizing: Sizing) -> np.ndarray:
    path = os.path.join(root, name)
    try:
        return sizing(decoded(path, grey))
    except Exception as error:
        # Pillow raises many kinds of exceptions for a damaged file.
        reason = one_line(error).removesuffix(f" '{printable(path)}'")
        raise DataError(
            f"'{path}' can't be read as an image: {reason}", "repair or remove it, or set --config.data.unreadable=skip"
        ) from error


def _cache_key(what: str, root: Path, files: str) -> str:
    # Two folders may hold files of the same names, sizes and times.
    return f"{what}-{files}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"


def _in_memory_if_it_fits(root: Path, files: str, images: StreamedImages, resident_mb: int) -> Images:
    """The images as an array, from the cache or decoded, if they may be in memory."""
    try:
        check_memory(images.nbytes, "the decoded images take")
    except ValueError:
        return images
    if images.nbytes > resident_mb * 2**20:
        return images
    key = _cache_key("folder", root, files)
    return cache.load_or_make(key, ["images"], lambda: {"images": images.decode()})["images"]
