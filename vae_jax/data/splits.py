"""The parts of a data set that a run trains on, chooses its checkpoint by, and reports."""

import dataclasses
import functools
from typing import Any

import numpy as np

from vae_jax.data.binarization import binarized_once, thresholded
from vae_jax.data.dataset import MOST_CLASSES, Dataset, Labels, split_indices
from vae_jax.data.decoding import MOST_PIXELS
from vae_jax.data.streamed import Images, changed, take
from vae_jax.errors import UserError
from vae_jax.printable import one_line, printable

SPLITS = ("train", "validation", "test")
BINARIZATIONS = ("dynamic", "fixed", "threshold", "none")
OTHER_IMAGES = len(SPLITS)
# Of one image: that of the largest picture that is decoded, in colours.
_MOST_VALUES = 3 * MOST_PIXELS


@dataclasses.dataclass(frozen=True)
class Split:
    """Images with what their pixels mean.

    Attributes:
        images: `uint8[N, H, W, C]`, values in `0 .. max_value`; in memory, or `StreamedImages`.
        labels: `int32[N]`, or None.
        max_value: 1 where the pixels are binary.
    """

    images: Images
    labels: Labels | None
    max_value: int


@dataclasses.dataclass(frozen=True)
class ImageKind:
    """What has to be known of images to make a model for them, and to bring other images into their form.

    Attributes:
        image_shape: Height, width, channels.
        max_value: The largest value a pixel can take, as the source has them.
        num_classes: Labels run from 0 to this; 0 where there are none.
        class_names: What each label stands for; empty where the source doesn't say.
    """

    image_shape: tuple[int, int, int]
    max_value: int
    num_classes: int
    class_names: tuple[str, ...] = ()

    @classmethod
    def from_mapping(cls, mapping: Any) -> "ImageKind":
        """The kind that `dataclasses.asdict` made a mapping of, and JSON has kept since.

        Raises:
            ValueError: If it is none.
        """
        try:
            height, width, channels = mapping["image_shape"]
            max_value, num_classes = mapping["max_value"], mapping["num_classes"]
            names = list(mapping.get("class_names", ()))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no image_shape, max_value and num_classes in {_short(mapping)}") from error
        numbers, texts = (height, width, channels, max_value, num_classes), [type(name) is str for name in names]
        if (
            any(type(number) is not int for number in numbers)
            or not all(texts)
            or (names and len(names) != num_classes)
            or min(height, width, channels) < 1
            or height * width * channels > _MOST_VALUES
            or not 1 <= max_value <= 255
            or not 0 <= num_classes <= MOST_CLASSES
        ):
            raise ValueError(f"there are no images of {_short(mapping)}")
        return cls((height, width, channels), max_value, num_classes, tuple(map(printable, names)))

    def __str__(self) -> str:
        size = "x".join(map(str, self.image_shape))
        return f"{size} with values to {self.max_value} and {self.num_classes} classes"

    def class_name(self, label: int) -> str:
        """What to call a class: its name, or its number."""
        return self.class_names[label] if label < len(self.class_names) else str(label)


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, divided and with its binarization decided.

    Attributes:
        dataset: As the source has it.
        binarization: One of `BINARIZATIONS`.
        validation_fraction: Share of the training images set aside.
        seed: `data.seed`: fixes the division and the binarization of everything that is evaluated.
    """

    dataset: Dataset
    binarization: str
    validation_fraction: float
    seed: int

    def __str__(self) -> str:
        """How many images there are of each split, and of what kind, in one line."""
        counts = [f"{len(self.part(split).images):,} {split}" for split in SPLITS]
        size, classes = "x".join(map(str, self.dataset.image_shape)), self.num_classes
        labels = f"{classes} classes" if classes else "no classes"
        return f"{self.dataset.name}: {', '.join(counts[:-1])} and {counts[-1]} images of {size} pixels, {labels}"

    @property
    def is_binary(self) -> bool:
        """Whether the model sees zeros and ones."""
        return self.binarization != "none"

    @property
    def is_dynamic(self) -> bool:
        """Whether training images are drawn anew at each use."""
        return self.binarization == "dynamic"

    @property
    def num_classes(self) -> int:
        """Labels run from 0 to this; 0 where there are none."""
        labels = [part for part in (self.dataset.train_labels, self.dataset.test_labels) if part is not None]
        largest = max((int(part.max(initial=0)) for part in labels), default=-1)
        if largest >= MOST_CLASSES:
            raise UserError(
                f"a label of {self.dataset.name} is {largest}, and classes are numbered from 0 to {MOST_CLASSES - 1}; "
                "leave labels out, or number the classes anew"
            )
        return largest + 1

    @property
    def kind(self) -> ImageKind:
        """What a model has to know of these images."""
        source = self.dataset
        return ImageKind(source.image_shape, source.max_value, self.num_classes, source.class_names)

    @functools.cached_property
    def training(self) -> Split:
        """What training draws from; still grey where the binarization is dynamic."""
        part = self.part("train")
        return part if self.is_dynamic else self._fixed(part, SPLITS.index("train"))

    def for_evaluation(self, split: str) -> Split:
        """A split as it is measured: the same pixels for every run with this `data.seed`.

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
        return self._fixed(part, SPLITS.index(split))

    @functools.cached_property
    def _train_and_validation(self) -> tuple[np.ndarray, np.ndarray]:
        return split_indices(len(self.dataset.train_images), self.validation_fraction, self.seed)

    def part(self, split: str) -> Split:
        source = self.dataset
        if split == "test":
            return Split(source.test_images, source.test_labels, source.max_value)
        indices = self._train_and_validation[SPLITS.index(split)]
        labels = None if source.train_labels is None else source.train_labels[indices]
        return Split(take(source.train_images, indices), labels, source.max_value)

    def _fixed(self, part: Split, number: int) -> Split:
        return fixed(part, self.binarization, self.seed, number)


def fixed(part: Split, binarization: str, seed: int, number: int) -> Split:
    """Images with the binarization that evaluation gives them.

    Args:
        part: Images as their source has them.
        binarization: One of `BINARIZATIONS`.
        seed: `data.seed`.
        number: What tells the splits apart; `OTHER_IMAGES` for those that are none of the data set's.
    """
    if binarization == "none":
        return part
    if binarization == "threshold":
        change = functools.partial(_thresholded, max_value=part.max_value)
    else:
        change = functools.partial(_binarized_once, max_value=part.max_value, seed=seed, part=number)
    return Split(changed(part.images, change), part.labels, 1)


def _short(mapping: Any) -> str:
    return one_line(repr(mapping), 200)


# Functions of (pixels, numbers) that can be pickled into a process that decodes.
def _thresholded(pixels: np.ndarray, numbers: np.ndarray | None, max_value: int) -> np.ndarray:
    return thresholded(pixels, max_value)


def _binarized_once(pixels: np.ndarray, numbers: np.ndarray | None, max_value: int, seed: int, part: int) -> np.ndarray:
    return binarized_once(pixels, max_value, seed, part, numbers)
