"""`interpolate`: what lies between images in the space of latents."""

import itertools
from collections.abc import Sequence

import numpy as np
from absl import flags

from vae_jax.cli.flags import Flags, define_run
from vae_jax.cli.images import chosen_images, define_images, some_images
from vae_jax.cli.opening import open_for_output
from vae_jax.cli.terminal import say
from vae_jax.errors import UserError
from vae_jax.memory import check_images_fit
from vae_jax.pictures import grid, write_png

PATHS = ("linear", "spherical")


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_run(values)
    define_images(values)
    meaning = "names or numbers of two images or more; a row from each to the next"
    flags.DEFINE_list("between", ["0", "1"], meaning, flag_values=values)
    flags.DEFINE_integer("steps", 8, "images between the two", flag_values=values, lower_bound=1)
    flags.DEFINE_enum("path", "linear", PATHS, "a straight line, or along a great circle", flag_values=values)
    flags.DEFINE_string("output", None, "PNG file; in the run's images folder if not given", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    trained, output = open_for_output(values, f"images/interpolation_{values['path']}", ".png")
    check_images_fit(values["steps"] * max(1, len(values["between"]) - 1), trained.kind.image_shape)
    images = chosen_images(trained, values)
    images = some_images(images, _numbers(images.names, values["between"]))
    originals, labels = images.split.pixels, images.split.given if trained.model.context_size else None
    count, classes = values["steps"] + 2, None
    z = trained.encode(originals, labels)
    points = [between(first, last, count, values["path"]) for first, last in itertools.pairwise(z)]
    if labels is not None and trained.context_names:
        classes = np.concatenate([between(*ends, count, "linear") for ends in itertools.pairwise(labels)])
    elif labels is not None:
        # The class of the nearer end.
        halves = count // 2, count - count // 2
        classes = np.concatenate([np.repeat(ends, halves) for ends in itertools.pairwise(labels)])
    decoded = trained.decode(np.concatenate(points), classes).reshape(len(points), count, *originals.shape[1:])
    rows = np.concatenate([originals[:-1, None], decoded, originals[1:, None]], axis=1)
    write_png(output, grid(rows.reshape(-1, *originals.shape[1:]), count + 2))
    say(f"{' to '.join(images.names)}: originals at the ends, {values['path']} in between, in {output}")


def between(first: np.ndarray, last: np.ndarray, count: int, path: str) -> np.ndarray:
    """Points from one to the other, both included.

    Args:
        first: `[D]`.
        last: `[D]`.
        count: How many, at least 2.
        path: `linear`, `(1-t) a + t b`; or `spherical`, `sin((1-t)w)/sin(w) a + sin(tw)/sin(w) b` with w the angle
            between the two, which keeps the length in between where a straight line comes near the middle.

    Returns:
        `[count, D]`.

    Source:
        Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985.
    """
    t = np.linspace(0.0, 1.0, count, dtype=np.float32)[:, None]
    straight = (1.0 - t) * first + t * last
    lengths = float(np.linalg.norm(first) * np.linalg.norm(last))
    cosine = float(np.clip(np.dot(first, last) / lengths, -1.0, 1.0)) if lengths > 0.0 else 1.0
    angle = np.arccos(cosine)
    # Where both lie on one line through the middle there is no circle, or any.
    if path == "linear" or np.sin(angle) < 1e-4:
        return straight
    return (np.sin((1.0 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle)


def _numbers(names: Sequence[str], wanted: list[str]) -> np.ndarray:
    """The places of the wanted images: names come before numbers."""
    if min(len(wanted), len(names)) < 2:
        raise UserError("interpolation needs two images or more; set --between=FIRST,SECOND")
    found = []
    for name in wanted:
        if name not in names and not (name.isdigit() and int(name) < len(names)):
            raise UserError(
                f"there is no image '{name}' among the {len(names)}; set --between to names, or to numbers from 0 to "
                f"{len(names) - 1}"
            )
        found.append(names.index(name) if name in names else int(name))
    return np.array(found)
