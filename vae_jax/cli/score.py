"""`score`: log p(x) of each image, the least likely first, to find what doesn't belong."""

import csv
import math
from typing import Any

import numpy as np
from absl import flags

from vae_jax.cli.evaluate import importance_estimates
from vae_jax.cli.flags import Flags, define_replica, define_workdir, given_section
from vae_jax.cli.images import chosen_images, define_images, output_file, pictures_of
from vae_jax.cli.terminal import say
from vae_jax.data.user_images import NamedImages
from vae_jax.escaping import counted
from vae_jax.evaluation import ImportanceEstimate
from vae_jax.files import replacing
from vae_jax.pictures import grid, write_png
from vae_jax.trained import open_run

_SHOWN, _COLUMNS, _PRINTED = 64, 8, 10


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_workdir(values)
    define_replica(values)
    define_images(values)
    for name, meaning in (("num_samples", "samples of z for each image"), ("memory_mb", "memory for samples, in MiB")):
        text = f"{meaning}; as in the run's config if not given"
        flags.DEFINE_integer(name, None, text, flag_values=values, lower_bound=1)
    flags.DEFINE_string("output", None, ".csv file; in the run's folder if not given", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    trained = open_run(values["workdir"], values["checkpoint"], values["replica"], values["allow_custom"])
    output = output_file(trained, values, "scores", ".csv")
    images = chosen_images(trained, values)
    settings = given_section(values, trained.config.evaluate)
    estimates = importance_estimates(trained, images.split, settings)
    # What is no number at all is stranger than any.
    order = np.argsort(np.nan_to_num(estimates.log_likelihood, nan=-np.inf), kind="stable")
    rows = _rows(images, estimates, math.prod(trained.kind.image_shape), order)
    with (
        replacing(output, "choose another --output") as unfinished,
        unfinished.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    picture = output.with_name(f"{output.stem}_strangest.png")
    write_png(picture, grid(pictures_of(images, order[:_SHOWN]), _COLUMNS))
    say(f"log p(x) in nats, K = {settings.num_samples}; the least likely of {counted(len(rows), 'image')}:")
    width = max(len(str(row["name"])) for row in rows[:_PRINTED])
    for row in rows[:_PRINTED]:
        say(f"  {row['name']:<{width}}  {row['log_likelihood']:10.2f} ± {row['standard_error']:.2f} (estimator)")
    say(f"all of them in {output}; the first {min(_SHOWN, len(rows))} pictured in {picture}")


# What a spreadsheet takes for the start of a formula.
_FORMULA = ("=", "+", "-", "@")


def _cell(name: str) -> str:
    """A name as a cell that spreadsheets don't compute: `./=1+1.png` is the file `=1+1.png` still."""
    return f"./{name}" if name.startswith(_FORMULA) else name


def _rows(images: NamedImages, estimates: ImportanceEstimate, num_dims: int, order: np.ndarray) -> list[dict[str, Any]]:
    """A row for each image, in the order that is given."""
    labels, names = images.split.labels, images.class_names
    return [
        {
            "name": _cell(str(images.names[number])),
            **({} if labels is None else {"label": int(labels[number])}),
            **({"class": _cell(names[labels[number]])} if labels is not None and names else {}),
            "log_likelihood": float(estimates.log_likelihood[number]),
            "standard_error": float(np.sqrt(estimates.log_likelihood_variance[number])),
            "bits_per_dim": -float(estimates.log_likelihood[number]) / num_dims / math.log(2.0),
            "elbo": float(estimates.elbo[number]),
            "reconstruction": float(estimates.reconstruction[number]),
            "kl": float(estimates.kl[number]),
            "effective_sample_size": float(estimates.effective_sample_size[number]),
        }
        for number in order.tolist()
    ]
