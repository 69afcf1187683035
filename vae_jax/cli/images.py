"""The images that a verb works on: a split of the run's data, or others that are brought to it."""

import dataclasses
import sys

import numpy as np
from absl import flags

from vae_jax.cli.flags import Flags, define_context, read_context
from vae_jax.data.dataset import OTHER_IMAGES, binarized
from vae_jax.data.user_images import NamedImages, read_images
from vae_jax.errors import UserError
from vae_jax.escaping import counted
from vae_jax.trained import TrainedModel

_SPLIT = "test"
_CLASSES_SHOWN = 10


def define_images(values: flags.FlagValues) -> None:
    """`--input` and `--split`, which choose between images brought along and those of the data set; `--context`."""
    flags.DEFINE_string("input", None, "folder of pictures, .npz with images, or one picture", flag_values=values)
    meaning = "train, validation or test, where no --input is given; test if neither is"
    flags.DEFINE_string("split", None, meaning, flag_values=values)
    flags.DEFINE_integer("num_images", 0, "only the first so many; 0: all", flag_values=values, lower_bound=0)
    define_context(values, "those of the images")
    flags.DEFINE_boolean("skip_unreadable", True, "name and leave out files that can't be used", flag_values=values)


def chosen_images(trained: TrainedModel, values: Flags) -> NamedImages:
    """The images that the flags name, as the model sees them; files that can't be used are named on stderr.

    Raises:
        UserError: If no image is left, one can't be used that shouldn't be left out, a label is missing, or a split is
            named beside others.
    """
    source = source_of(values)
    if values["input"]:
        found, wrong = read_images(values["input"], trained.kind, trained.config.data.image_fit)
        if wrong and not values["skip_unreadable"]:
            raise UserError(f"{wrong[0]}; mend or remove it, or leave --skip_unreadable at true")
        if wrong:
            total = f"{len(wrong)} of {len(wrong) + len(found.names)} files are left out"
            print("\n".join([*(f"left out: {line}" for line in wrong), total]), file=sys.stderr)
        data = trained.config.data
        found = dataclasses.replace(found, split=binarized(found.split, data.binarization, data.seed, OTHER_IMAGES))
    else:
        split = trained.data.for_evaluation(source)
        found = NamedImages(list(map(str, range(len(split.images)))), split, trained.kind.class_names)
    if values["num_images"]:
        found = some_images(found, slice(values["num_images"]))
    context = read_context(values, trained.context_names)
    if context is not None:
        context = np.repeat(context, len(found.names), axis=0)
        found = dataclasses.replace(found, split=dataclasses.replace(found.split, context=context))
    _check_labels(trained, found)
    return found


def source_of(values: Flags) -> str:
    """`input`, or the name of the split.

    Raises:
        UserError: If the flags name both.
    """
    if values["input"] and values["split"]:
        raise UserError("--input and --split both say which images to take; leave one of them out")
    return "input" if values["input"] else values["split"] or _SPLIT


def some_images(images: NamedImages, rows: slice | np.ndarray) -> NamedImages:
    """Some of the images, by their places."""
    names = [str(name) for name in np.array(images.names)[rows]]
    return dataclasses.replace(images, names=names, split=images.split.some(rows))


def _check_labels(trained: TrainedModel, images: NamedImages) -> None:
    classes, split = trained.model.context_size, images.split
    if not classes:
        return
    if names := trained.context_names:
        if split.context is None or split.context.shape[1:] != (classes,):
            raise UserError(
                f"this model is told {counted(classes, 'number')} of each image, and these images come without; add "
                f"--context={','.join(names)}, or use an .npz with images and context"
            )
        return
    if split.labels is None:
        shown = ", ".join(trained.kind.class_name(label) for label in range(min(classes, _CLASSES_SHOWN)))
        raise UserError(
            f"this model is conditional, and these images have no labels; sort pictures into folders named after the "
            f"classes ({shown}{', ...' if classes > _CLASSES_SHOWN else ''}), or use an .npz with images and labels"
        )
    if split.labels.min() < 0 or split.labels.max() >= classes:
        raise UserError(f"labels must be from 0 to {classes - 1}; found {split.labels.min()} to {split.labels.max()}")
