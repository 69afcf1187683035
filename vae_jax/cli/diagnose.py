"""`diagnose`: why a trained model is as good, or as blurry, as it is."""

import pathlib
import sys
from typing import Any

import numpy as np
import tqdm
from absl import flags

from vae_jax.build import choose_or_import
from vae_jax.cli.charts import kl_chart, spectrum_chart
from vae_jax.cli.evaluate import evaluation_key
from vae_jax.cli.flags import Flags, define_run, define_section, given_section
from vae_jax.cli.opening import open_chosen
from vae_jax.cli.terminal import say
from vae_jax.config import DiagnoseConfig
from vae_jax.diagnosis import STAGES, Diagnosis, Subject, advice, diagnose, sentences, table
from vae_jax.errors import UserError
from vae_jax.evaluation import Features, random_convolutions
from vae_jax.models import check_has_density
from vae_jax.pictures import side_by_side, write_png
from vae_jax.trained import TrainedModel, check_custom_name

_SHOWN_PAIRS = 32
_PAIRS_PER_ROW = 4


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_run(values)
    flags.DEFINE_string("split", "test", "train, validation or test", flag_values=values)
    define_section(values, DiagnoseConfig)


def run(values: Flags) -> None:
    """Runs the verb."""
    trained = open_chosen(values)
    check_has_density(trained.model)
    trained.folder.check_writable()
    settings = given_section(values, trained.config.diagnose)
    split = trained.data.for_evaluation(values["split"])
    if len(split.images) < 2:
        raise UserError(f"the {values['split']} split has one image, and a diagnosis needs two; set another --split")
    allowed = bool(values["features"]) or values["allow_custom"]
    check_custom_name("diagnose.features", settings.features, trained.folder.root, allowed)
    features = _features(settings.features, trained)
    noise, is_training = evaluation_key(trained), values["split"] == "train"
    subject = Subject(trained.model, trained.variables, trained.data, split, noise, settings, is_training)
    with tqdm.tqdm(total=len(STAGES), unit="stage", disable=not sys.stderr.isatty(), leave=False) as bar:

        def on_stage(name: str) -> None:
            bar.update(STAGES.index(name) - bar.n)
            bar.set_description(name)

        found = diagnose(subject, features, on_stage)
    result = {
        "split": values["split"],
        "step": trained.step,
        "params_digest": trained.params_digest,
        "unit": "nats per image",
        "measure": trained.model.measure,
        **found.result,
        "advice": advice(found.result, trained.config),
    }
    images = f"{result['likelihood']['elbo']['num_images']} of {len(split.images)} {values['split']} images"
    say(f"{images}, step {trained.step}, {result['unit']}, density: {result['measure']}")
    say("\n".join([table(result), "", *sentences(result)]))
    folder, split_name = trained.folder, "" if values["split"] == "test" else f"_{values['split']}"
    path = folder.root / f"diagnosis{split_name}{trained.suffix}.json"
    folder.write_json(path, result)
    _draw(folder.images, path.stem, found)
    say(f"written to {path}; pictures in {folder.images}")


def _features(name: str, trained: TrainedModel) -> Features:
    """The user's feature function, or our random convolutions."""
    ours: dict[str, Any] = {"random_convolutions": random_convolutions(trained.kind.image_shape)}
    given = choose_or_import("diagnose.features", name, ours)

    def features(images: np.ndarray) -> np.ndarray:
        try:
            vectors = np.asarray(given(images))
        except (Exception, SystemExit) as error:
            # It is a program of the user's: it can raise anything.
            raise UserError(f"features '{name}' can't be used ({type(error).__name__}: {error})") from error
        count, real = len(images), vectors.dtype.kind in "iuf"
        if vectors.ndim != 2 or len(vectors) != count or not real or not np.all(np.isfinite(vectors)):
            made = f"{vectors.dtype}{list(vectors.shape)} of {count} images"
            raise UserError(f"features '{name}' made {made}; a vector of finite numbers for each is wanted")
        return vectors

    # Now, on real images, not after minutes of other work.
    features(trained.data.for_evaluation("train").some(slice(2)).pixels)
    return features


def _draw(folder: pathlib.Path, name: str, found: Diagnosis) -> None:
    spectrum_chart(folder / f"{name}_spectrum.png", found.spectra)
    if (kl := found.result["latents"]["kl_per_dimension"]) is not None:
        kl_chart(folder / f"{name}_kl.png", kl)
    pairs = side_by_side(found.samples[:_SHOWN_PAIRS], found.nearest[:_SHOWN_PAIRS], _PAIRS_PER_ROW)
    write_png(folder / f"{name}_nearest.png", pairs)
