"""A data set with its parts: images in memory or in files, labels, and how pixels are binarized."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from vae_jax.data.binarization import binarized_once, thresholded
from vae_jax.data.decoding import MOST_PIXELS
from vae_jax.data.dividing import split_indices
from vae_jax.data.streamed import Images, StreamedImages, changed, take
from vae_jax.errors import UserError
from vae_jax.escaping import one_line, printable

Labels = Int[np.ndarray, "n"]
# What a conditional model is told of each example: its class, or numbers.
Given = Labels | Float[np.ndarray, "n context"] | None
# Each class is an entry in reports, so a larger label is taken for a mistake.
MOST_CLASSES = 100_000
SPLITS = ("train", "validation", "test")
# What data consists of: levels of pixels from 0 to the largest one; numbers in [0, 1]; any numbers; counts.
VALUES = ("levels", "continuous", "real", "counts")
# The number, in the stream of the fixed binarization, of images that belong to no split.
OTHER_IMAGES = len(SPLITS)
# Values in one image: an RGB picture of the largest size that is decoded.
_MOST_VALUES = 3 * MOST_PIXELS


@dataclasses.dataclass(frozen=True)
class Split:
    """Images, their labels, and what their pixels mean.

    Attributes:
        images: `[N, H, W, C]` or rows `[N, D]`: uint8 with values in `0 .. max_value`, float32 where NaN is a value
            that is missing, or int32; in memory, or `StreamedImages`.
        labels: `int32[N]`, or None.
        max_value: 1 where the pixels are binary.
        context: `float32[N, C]`, what a conditional model is told in place of the label; or None.
    """

    images: Images
    labels: Labels | None
    max_value: int
    context: Float[np.ndarray, "n context"] | None = None

    @property
    def given(self) -> Given:
        """What a conditional model is told."""
        if self.context is not None:
            return self.context
        return None if self.labels is None else self.labels.astype(np.int32)

    @property
    def pixels(self) -> Float[np.ndarray, "n *event"]:
        """The images in memory, with values in [0, 1], or numbers as they are."""
        return np.asarray(self.images, np.float32) / self.max_value

    def some(self, rows: Any) -> "Split":
        """Some of the images, by a slice or their numbers."""
        labels, context = (None if array is None else array[rows] for array in (self.labels, self.context))
        return Split(take(self.images, rows), labels, self.max_value, context)


@dataclasses.dataclass(frozen=True)
class ImageKind:
    """What a model has to know about its images. Saved with each model, which can be used without its data.

    Attributes:
        image_shape: Height, width, channels; or the length of a row.
        max_value: The largest value a pixel can take, before any binarization; 1 for numbers as they are.
        num_classes: Labels are below this; 0 without labels.
        class_names: The name of each class; empty if the source has no names.
        context_names: The name of each number that a conditional model is told in place of the class; may be empty.
        values: One of `VALUES`.
    """

    image_shape: tuple[int, ...]
    max_value: int
    num_classes: int
    class_names: tuple[str, ...] = ()
    context_names: tuple[str, ...] = ()
    values: str = "levels"

    @classmethod
    def from_mapping(cls, mapping: Any) -> "ImageKind":
        """Reads what `dataclasses.asdict` wrote to a JSON file.

        Raises:
            ValueError: If the mapping doesn't describe images.
        """
        try:
            names, told = (tuple(map(printable, mapping.get(key, ()))) for key in ("class_names", "context_names"))
            shape, most, classes = tuple(mapping["image_shape"]), mapping["max_value"], mapping["num_classes"]
            kind = cls(shape, most, classes, names, told, mapping.get("values", "levels"))
            sound = (
                all(type(number) is int for number in (*shape, most, classes))
                and (len(shape) in (1, 3) and min(shape) >= 1 and math.prod(shape) <= _MOST_VALUES)
                and (1 <= most <= 255 and 0 <= classes <= MOST_CLASSES and len(told) <= MOST_CLASSES)
                and (len(names) in (0, classes) and kind.values in VALUES)
            )
        except (AttributeError, KeyError, TypeError):
            sound = False
        if not sound:
            raise ValueError(f"image_shape, max_value and num_classes expected in {one_line(repr(mapping), 200)}")
        return kind

    def __str__(self) -> str:
        size = "x".join(map(str, self.image_shape))
        values = f"values to {self.max_value}" if self.values == "levels" else self.values
        return f"{size} with {values} and {self.num_classes} classes{_told(self.context_names)}"

    @property
    def context_size(self) -> int:
        """How many numbers a conditional model is told of each image: its context, or else its class as one-hot."""
        return len(self.context_names) or self.num_classes

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where it has no name."""
        return self.class_names[label] if label < len(self.class_names) else str(label)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, how it is divided and how its pixels are binarized.

    A source leaves `binarization`, `validation_fraction` and `seed` to `build_data`, which takes them from the config.

    Attributes:
        name: Its name in reports.
        train_images: As `Split.images`; validation images are taken from these.
        test_images: Likewise.
        train_labels: `int32[N]`, or None where there are no labels.
        test_labels: `int32[M]`, or None.
        max_value: The largest value a pixel can take (255 for 8-bit images, 16 for the digits).
        fingerprint: Hexadecimal digest that changes when the data changes.
        class_names: The name of each class, if the source has names.
        values: One of `VALUES`.
        has_missing: Whether any value is missing (NaN).
        binarization: `dynamic`, `fixed`, `threshold` or `none`.
        validation_fraction: Share of the training images that is set aside for validation.
        seed: `data.seed`: fixes the division and the binarization of all images used for evaluation.
        train_context: `float32[N, C]`, what a conditional model is told in place of the labels; or None.
        test_context: `float32[M, C]`, or None.
        context_names: The name of each of these C numbers; they are numbered if there are no names.
    """

    name: str
    train_images: Images
    test_images: Shaped[np.ndarray | StreamedImages, "m *event"]
    train_labels: Labels | None
    test_labels: Int[np.ndarray, "m"] | None
    max_value: int
    fingerprint: str
    class_names: tuple[str, ...] = ()
    values: str = "levels"
    has_missing: bool = False
    binarization: str = "none"
    validation_fraction: float = 0.0
    seed: int = 0
    train_context: Float[np.ndarray, "n context"] | None = None
    test_context: Float[np.ndarray, "m context"] | None = None
    context_names: tuple[str, ...] = ()

    @classmethod
    def of_parts(cls, name: str, train: Split, test: Split, digest: str, **others: Any) -> "Dataset":
        """A data set of two parts; `others` are fields that a split doesn't have."""
        arrays = train.images, test.images, train.labels, test.labels
        contexts = {"train_context": train.context, "test_context": test.context}
        return cls(name, *arrays, train.max_value, digest, **contexts, **others)

    def __str__(self) -> str:
        """The number of images in each split, their size and their number of classes, in one line."""
        counts = [f"{len(self.part(split).images):,} {split}" for split in SPLITS]
        size, classes = "x".join(map(str, self.image_shape)), self.num_classes
        labels = (f"{classes} classes" if classes else "no classes") + _told(self.kind.context_names)
        values = "counts" if self.values == "counts" else "numbers"
        what = f"images of {size} pixels" if len(self.image_shape) > 1 else f"rows of {size} {values}"
        missing = ", some missing" if self.has_missing else ""
        return f"{self.name}: {', '.join(counts[:-1])} and {counts[-1]} {what}{missing}, {labels}"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of one image, or the length of a row."""
        return tuple(self.train_images.shape[1:])

    @property
    def num_classes(self) -> int:
        """Labels are below this; 0 without labels.

        Raises:
            UserError: If a label is too large.
        """
        labels = [part for part in (self.train_labels, self.test_labels) if part is not None]
        largest = max((int(part.max(initial=0)) for part in labels), default=-1)
        if largest >= MOST_CLASSES:
            raise UserError(
                f"{self.name} has a label {largest}, but the largest allowed is {MOST_CLASSES - 1}; remove the labels, "
                "or number the classes from 0"
            )
        return largest + 1

    @property
    def kind(self) -> ImageKind:
        """What a model has to know about these images."""
        size = 0 if self.train_context is None else self.train_context.shape[1]
        names = self.context_names or tuple(f"context{number}" for number in range(size))
        return ImageKind(self.image_shape, self.max_value, self.num_classes, self.class_names, names, self.values)

    @property
    def is_binary(self) -> bool:
        """Whether the model sees zeros and ones."""
        return self.binarization != "none"

    @property
    def is_dynamic(self) -> bool:
        """Whether training images are binarized anew at each use."""
        return self.binarization == "dynamic"

    @functools.cached_property
    def training(self) -> Split:
        """The images that training draws batches from; not yet binarized where the binarization is dynamic."""
        return self.part("train") if self.is_dynamic else self.for_evaluation("train")

    def for_evaluation(self, split: str) -> Split:
        """A split with the pixels that are evaluated: the same for every run with this `data.seed`.

        Raises:
            UserError: If there is no such split, or it has no images.
        """
        if split not in SPLITS:
            raise UserError(f"there is no split '{split}'; choose one of {', '.join(SPLITS)}")
        part = self.part(split)
        if not len(part.images):
            raise UserError(
                f"the {split} split has no images; train with --config.data.{split}_fraction above 0, or choose another"
            )
        return binarized(part, self.binarization, self.seed, SPLITS.index(split))

    def part(self, split: str) -> Split:
        """A split with the source's pixels."""
        if split == "test":
            return Split(self.test_images, self.test_labels, self.max_value, self.test_context)
        rows = self._train_and_validation[SPLITS.index(split)]
        return Split(self.train_images, self.train_labels, self.max_value, self.train_context).some(rows)

    @functools.cached_property
    def _train_and_validation(self) -> tuple[np.ndarray, np.ndarray]:
        return split_indices(len(self.train_images), self.validation_fraction, self.seed)


def binarized(part: Split, binarization: str, seed: int, number: int) -> Split:
    """Images binarized as for evaluation: always the same for the same arguments.

    Args:
        part: Images with the source's pixels.
        binarization: `dynamic`, `fixed`, `threshold` or `none`.
        seed: `data.seed`.
        number: Index of the split in `SPLITS`, or `OTHER_IMAGES` for images from elsewhere.
    """
    if binarization == "none":
        return part
    # Module-level functions, so that they can be pickled into worker processes.
    change = functools.partial(thresholded, max_value=part.max_value)
    if binarization != "threshold":
        change = functools.partial(binarized_once, max_value=part.max_value, seed=seed, part=number)
    return dataclasses.replace(part, images=changed(part.images, change), max_value=1)


def _told(names: tuple[str, ...]) -> str:
    return f", context of {', '.join(names)}" if names else ""
