"""`score`: log p(x) of each image, the least likely first, to find what doesn't belong."""

import csv
from typing import Any

import numpy as np
from absl import flags

from vae_jax.cli.evaluate import importance_estimates
from vae_jax.cli.flags import Flags, define_run, define_section, given_section
from vae_jax.cli.images import chosen_images, define_images, source_of
from vae_jax.cli.opening import open_for_output
from vae_jax.cli.terminal import say
from vae_jax.config import EvaluateConfig
from vae_jax.data.user_images import NamedImages
from vae_jax.escaping import counted
from vae_jax.evaluation import ImportanceEstimate, values_per_example
from vae_jax.files import replacing
from vae_jax.numerics import bits_per_dim
from vae_jax.pictures import grid, write_png

_SHOWN, _COLUMNS, _PRINTED = 64, 8, 10
_TERMS = ("elbo", "reconstruction", "kl", "effective_sample_size")


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_run(values)
    define_images(values)
    define_section(values, EvaluateConfig)
    flags.DEFINE_string("output", None, ".csv file; in the run's folder if not given", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    trained, output = open_for_output(values, f"scores_{source_of(values)}", ".csv")
    images = chosen_images(trained, values)
    settings = given_section(values, trained.config.evaluate)
    estimates = importance_estimates(trained, images.split, settings)
    # What is no number at all is stranger than any.
    order = np.argsort(np.nan_to_num(estimates.log_likelihood, nan=-np.inf), kind="stable")
    rows = _rows(images, estimates, order)
    with (
        replacing(output, "choose another --output") as unfinished,
        unfinished.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    picture = output.with_name(f"{output.stem}_strangest.png")
    write_png(picture, grid(images.split.some(order[:_SHOWN]).pixels, _COLUMNS))
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


def _rows(images: NamedImages, estimates: ImportanceEstimate, order: np.ndarray) -> list[dict[str, Any]]:
    """A row for each image, in the order that is given."""
    labels, names = images.split.labels, images.class_names
    return [
        {
            "name": _cell(str(images.names[number])),
            **({} if labels is None else {"label": int(labels[number])}),
            **({"class": _cell(names[labels[number]])} if labels is not None and names else {}),
            "log_likelihood": float(estimates.log_likelihood[number]),
            "standard_error": float(np.sqrt(estimates.log_likelihood_variance[number])),
            "bits_per_dim": bits_per_dim(
                float(estimates.log_likelihood[number]), values_per_example(images.split.images[number : number + 1])
            ),
            **{name: float(getattr(estimates, name)[number]) for name in _TERMS},
        }
        for number in order.tolist()
    ]
