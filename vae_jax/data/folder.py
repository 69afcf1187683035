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
from vae_jax.data.dataset import Dataset, Labels, split_indices
from vae_jax.data.decoding import Sizing, decoded
from vae_jax.data.streamed import Images, StreamedImages, take
from vae_jax.errors import DataError, UserError
from vae_jax.printable import one_line, printable

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
UNREADABLE = ("refuse", "skip")
_NAMED = 20
_TEST_FOLDERS = ("test", "val", "validation")


def load_folder(
    path: str, test_fraction: float, seed: int, sizing: Sizing, resident_mb: int, unreadable: str = "refuse"
) -> Dataset:
    """The images of a folder, in memory where they fit and else in their files.

    `train/` and one of `test/`, `val/` and `validation/` are the parts where they are there; else all images are
    divided. All pictures below count, however deep. Where they lie in folders, the first folder on the way to a picture
    is its class, and the sorted names of these are the labels from 0. Images are grey where the first is, and else have
    three channels.

    Args:
        path: The folder.
        test_fraction: Share of the images held out for testing where there are no parts.
        seed: What that division is drawn from.
        sizing: What size images are brought to.
        resident_mb: How much memory the decoded images may take, in MiB.
        unreadable: What is done about a file that can't be read: `refuse`, or `skip`, which names and leaves it out.

    Returns:
        The data set; largest pixel value 255.

    Raises:
        UserError: If there is no such folder, no image in it, one that can't be read, or they differ in size.
    """
    if not path:
        raise DataError("data.source is 'folder' but no folder is named", "add --config.data.dir=FOLDER")
    root = Path(path).expanduser().absolute()
    if not root.is_dir():
        raise DataError(f"there is no folder '{path}'", "set --config.data.dir to one with images")
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
    reader = _opened(root, names, sizing)
    files = _fingerprint(root, names, sizing)
    images = _resident(root, f"folder-{files}", StreamedImages(reader, np.arange(len(names))), resident_mb)
    labels, class_names = _labels(root, parts, names)
    train, test = (
        split_indices(len(names), test_fraction, seed)
        if len(parts) == 1
        else (np.arange(counts[0]), np.arange(counts[0], len(names)))
    )
    return Dataset(
        name=root.name,
        train_images=take(images, train),
        test_images=take(images, test),
        train_labels=None if labels is None else labels[train],
        test_labels=None if labels is None else labels[test],
        max_value=255,
        fingerprint=hashlib.sha256(files.encode() + train.tobytes() + test.tobytes()).hexdigest()[:16],
        class_names=class_names,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FolderReader:
    """Decodes image files.

    Attributes:
        root: The folder that names start from.
        names: The files.
        sizing: As in `load_folder`.
        image_shape: Height, width and channels of each image.
    """

    root: str
    names: tuple[str, ...]
    sizing: Sizing
    image_shape: tuple[int, int, int]

    def read(self, indices: Int[np.ndarray, "n"]) -> UInt8[np.ndarray, "n h w c"]:
        """The images of these numbers.

        Raises:
            UserError: If a file can't be read or has another size than the first.
        """
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        for row, index in enumerate(indices.tolist()):
            pixels = _decoded(self.root, self.names[index], self.image_shape[-1] == 1, self.sizing)
            if pixels.shape != self.image_shape:
                raise DataError(
                    f"images in '{self.root}' differ in size: {self.names[0]} is {_size(self.image_shape)}, "
                    f"{self.names[index]} {_size(pixels.shape)}",
                    "bring them to one size with --config.data.image_size=64, say",
                )
            images[row] = pixels
        return images


def _readable(root: Path, names: Sequence[str]) -> list[str]:
    """The files that can be decoded; the others are named on stderr. Every file is tried once, and that is kept."""
    key = f"readable-{_fingerprint(root, names, Sizing())}"
    kept = cache.load(root, key)
    if kept is None or kept.train_labels is None:

        def is_readable(name: str) -> bool:
            try:
                decoded(root / name, None)
            except Exception:
                # Pillow raises whatever comes to hand where a file is damaged.
                return False
            return True

        with concurrent.futures.ThreadPoolExecutor() as threads:
            flags = np.fromiter(threads.map(is_readable, names), np.int32, len(names))
        no_images = np.empty((len(names), 0, 0, 0), np.uint8)
        kept = Dataset(root.name, no_images, no_images[:0], flags, None, max_value=255, fingerprint=key)
        cache.save(root, key, kept)
    assert kept.train_labels is not None
    bad = [name for name, readable in zip(names, kept.train_labels, strict=True) if not readable]
    if bad:
        shown = ", ".join(map(printable, bad[:_NAMED])) + (", ..." if len(bad) > _NAMED else "")
        print(f"{len(bad)} of {len(names)} files can't be read as images and are left out: {shown}", file=sys.stderr)
    return [name for name, readable in zip(names, kept.train_labels, strict=True) if readable]


def _part_folders(root: Path) -> list[str]:
    """`train/` and the folder of test images, or the one folder that is divided; as beginnings of names."""
    if not (root / "train").is_dir():
        return [""]
    test = [name for name in _TEST_FOLDERS if (root / name).is_dir()]
    return ["train/", f"{test[0]}/"] if test else ["train/"]


def _image_names(folder: Path) -> list[str]:
    """Images below a folder, all of them in folders or none."""
    try:
        names = pictures_below(folder)
    except OSError as error:
        raise DataError(f"'{folder}' can't be read: {error}", "make it readable or set --config.data.dir") from error
    here = [name for name in names if not class_of(name)]
    below = [name for name in names if class_of(name)]
    if here and below:
        raise UserError(
            f"'{folder}' has images of its own ({here[0]}) and in folders of classes ({below[0]}); move one kind away"
        )
    return names


def pictures_below(folder: Path) -> list[str]:
    """Pictures in a folder and in all folders below it, as relative names; hidden files and folders are left out.

    Those of a folder stand before those of the folders in it, both sorted by name. Links are followed, but not back to
    a folder that they lie in.

    Raises:
        OSError: If a folder can't be read.
    """
    return list(_below(os.fspath(folder), "", ()))


def _below(path: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    status = os.stat(path)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(path) as entries:
        visible = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    yield from (f"{prefix}{entry.name}" for entry in visible if _is_image(entry))
    for entry in visible:
        if entry.is_dir():
            yield from _below(entry.path, f"{prefix}{entry.name}/", (*above, here))


def _is_image(entry: os.DirEntry) -> bool:
    # Links to nowhere, pipes and devices too: they are named as files that can't be read.
    return entry.name.lower().endswith(EXTENSIONS) and not entry.is_dir()


def class_of(name: str) -> str:
    """The first folder on the way to a picture; nothing where it lies in none.

    >>> class_of("cat/tabby/1.png"), class_of("1.png")
    ('cat', '')
    """
    return name.partition("/")[0] if "/" in name else ""


def _labels(root: Path, parts: Iterable[str], names: Sequence[str]) -> tuple[Labels | None, tuple[str, ...]]:
    """The class of each image by its folder, and their names; none where there's one alone, which says nothing."""
    below = [name.removeprefix(next(part for part in parts if name.startswith(part))) for name in names]
    classes = [class_of(name) for name in below]
    if any(classes) and not all(classes):
        raise UserError(
            f"'{root}' has folders of classes in one of {' and '.join(parts)} only; have them in both or in neither"
        )
    numbers = {name: number for number, name in enumerate(sorted(set(classes)))}
    if len(numbers) < 2:
        return None, ()
    return np.array([numbers[name] for name in classes], np.int32), tuple(map(printable, numbers))


def _opened(root: Path, names: Sequence[str], sizing: Sizing) -> FolderReader:
    """A reader of these files whose shape is that of the first."""
    first = _decoded(str(root), names[0], None, sizing)
    height, width, channels = first.shape
    return FolderReader(str(root), tuple(names), sizing, (height, width, channels))


def _decoded(root: str, name: str, grey: bool | None, sizing: Sizing) -> np.ndarray:
    path = os.path.join(root, name)
    try:
        pixels = decoded(path, grey)
    except Exception as error:
        # Pillow raises whatever comes to hand where a file is damaged.
        reason = one_line(error).removesuffix(f" '{printable(path)}'")
        raise DataError(
            f"'{path}' can't be read as an image: {reason}",
            "repair or remove it, or set --config.data.unreadable=skip",
        ) from error
    return sizing(pixels)


def _fingerprint(root: Path, names: Sequence[str], sizing: Sizing) -> str:
    """Digest of names, sizes and times of the last change: hashing the contents would take as long as decoding."""
    digest = hashlib.sha256(f"{str(sizing) or 0}\n".encode())
    # Names needn't be UTF-8.
    for name in names:
        path = root / name
        status = path.stat() if path.exists() else path.lstat()
        digest.update(os.fsencode(f"{name}:{status.st_size}:{status.st_mtime_ns}\n"))
    return digest.hexdigest()[:16]


def _resident(root: Path, key: str, images: StreamedImages, resident_mb: int) -> Images:
    """The images in memory where they fit: as they were kept, or decoded and kept."""
    try:
        check_memory(images.nbytes, "the decoded images take")
    except ValueError:
        return images
    if images.nbytes > resident_mb * 2**20:
        return images
    kept = cache.load(root, key)
    if kept is not None:
        return kept.train_images
    pixels = images.decode()
    # The cache keeps parts, but how these images are divided follows from the config.
    cache.save(root, key, Dataset(root.name, pixels, pixels[:0], None, None, max_value=255, fingerprint=key))
    return pixels


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)
