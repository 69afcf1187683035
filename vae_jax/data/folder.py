"""A folder of image files as a data set."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from vae_jax.data import cache
from vae_jax.data.archives import room_for_arrays
from vae_jax.data.contexts import read_contexts
from vae_jax.data.dataset import Dataset, Labels, Split
from vae_jax.data.decoding import Sizing, check_size, decoded
from vae_jax.data.dividing import split_indices
from vae_jax.data.streamed import Images, StreamedImages
from vae_jax.errors import DataError, UserError
from vae_jax.escaping import one_line, printable

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
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
    root = Path(path).expanduser().absolute()
    if not path or not root.is_dir():
        raise DataError(f"folder '{path}' not found", "set --config.data.dir=FOLDER to one with images")
    parts = _part_folders(root)
    names = [f"{part}{name}" for part in parts for name in pictures_below(root / part)]
    if unreadable == "skip":
        names = _readable(root, names)
    counts = [sum(name.startswith(part) for name in names) for part in parts]
    if not all(counts):
        empty = root / parts[counts.index(0)]
        raise DataError(
            f"there are no images in '{empty}' or below ({', '.join(EXTENSIONS)})",
            "put some there, or set --config.data.dir to another folder",
        )
    classes, class_names = _labels(root, parts, names)
    first = _decoded(str(root), names[0], None, sizing)
    reader = FolderReader(str(root), tuple(names), sizing, first.shape)
    files = cache.files_fingerprint(root, names, str(sizing))
    images: Images = StreamedImages(reader, np.arange(len(names)))
    if images.nbytes <= min(resident_mb * 2**20, room_for_arrays()):
        key, decode = _key("folder", root, files), images.decode
        images = cache.load_or_make(key, ["images"], lambda: {"images": decode()})["images"]
    contexts, context_names = read_contexts(labels, names, context) if labels else (None, ())
    train, test = np.split(np.arange(len(names)), [counts[0]])
    if len(parts) == 1:
        train, test = split_indices(len(names), test_fraction, seed)
    told = b"" if contexts is None else contexts.tobytes()
    digest = hashlib.sha256(files.encode() + train.tobytes() + test.tobytes() + told).hexdigest()[:16]
    whole = Split(images, classes, 255, contexts)
    others = {"class_names": class_names, "context_names": context_names}
    return Dataset.of_parts(root.name, whole.some(train), whole.some(test), digest, **others)


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
    image_shape: tuple[int, ...]

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
        # Pillow raises many kinds of exceptions for a damaged file.
        with contextlib.suppress(Exception):
            return decoded(root / name, None).size > 0
        return False

    def try_all() -> cache.Arrays:
        with concurrent.futures.ThreadPoolExecutor() as threads:
            return {"readable": np.fromiter(threads.map(is_readable, names), bool, len(names))}

    key = _key("readable", root, cache.files_fingerprint(root, names, "0"))
    flags = cache.load_or_make(key, ["readable"], try_all)["readable"]
    good, bad = ([name for name, flag in zip(names, flags, strict=True) if flag == wanted] for wanted in (True, False))
    if bad:
        shown = one_line(", ".join(bad), 1000)
        print(f"{len(bad)} of {len(names)} files can't be read as images and are left out: {shown}", file=sys.stderr)
    return good


def _part_folders(root: Path) -> list[str]:
    """`train/` and the folder of test images, or one folder that will be divided; as prefixes of names."""
    test = [f"{name}/" for name in _TEST_FOLDERS if (root / name).is_dir()]
    return ["train/", *test[:1]] if (root / "train").is_dir() else [""]


def pictures_below(folder: Path) -> list[str]:
    """Names of the pictures in a folder and its subfolders, relative to it; hidden files and folders are left out.

    The pictures of a folder come before those of its subfolders, both sorted by name. Links are followed, but not back
    to a folder that they lie in.

    Raises:
        UserError: If a folder can't be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"'{folder}' can't be read: {error}", "make it readable, or name another folder") from error

    names = []
    for path, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        here = Path(path)
        above = {place.resolve() for place in (here, *here.parents)}
        folders[:] = sorted(name for name in folders if name[0] != "." and (here / name).resolve() not in above)
        # Broken links, pipes and devices count, so that they are reported as files that can't be read.
        pictures = sorted(name for name in files if name[0] != "." and name.lower().endswith(EXTENSIONS))
        names += (os.path.relpath(here / name, folder) for name in pictures)
    return names


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
        inside, outside = names[classes.index(max(classes))], names[classes.index("")]
        raise UserError(
            f"'{root}' has images in folders of classes ({inside}) and others in none ({outside}); move one kind away"
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


def _key(what: str, root: Path, files: str) -> str:
    # Two folders may hold files of the same names, sizes and times.
    return f"{what}-{files}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"
