"""The model card: what a model is, how good it is, how it was made, and how it is used. Its text is `card.md.jinja`."""

import importlib.resources
import re
from collections.abc import Mapping
from typing import Any

import jax
import jinja2

from vae_jax.build import resolve_parts, shortened
from vae_jax.build.model import OF_MODEL
from vae_jax.config import Config, flatten
from vae_jax.errors import UserError
from vae_jax.escaping import one_line
from vae_jax.files import read_json
from vae_jax.models import num_latents
from vae_jax.runs import read_rows
from vae_jax.settings import read_part
from vae_jax.trained import TrainedModel


def model_card(trained: TrainedModel, name: str, license: str, start: Mapping[str, Any]) -> str:
    """A `README.md` as the Hugging Face hub reads it.

    Args:
        trained: The model.
        name: Its title.
        license: Of the parameters, as the hub spells it.
        start: What the manifest says of the run's last start.

    Raises:
        UserError: If the license is not an identifier, or `evaluation.json` can't be read.

    Source:
        https://huggingface.co/docs/hub/model-cards
    """
    check_license(license)
    config = trained.config
    text = (importlib.resources.files("vae_jax.export") / "card.md.jinja").read_text(encoding="utf-8")
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(text)
    return template.render(
        name=name,
        license=license,
        trained=trained,
        start=start,
        latents=num_latents(trained.model),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"])),
        parts={part: shortened(f"model.{part}", getattr(config.model, part)) for part in OF_MODEL},
        prior=read_part("model.prior", config.model.prior).name,
        changed=[
            (field, value)
            for (field, value, _), (_, default, _) in zip(
                flatten(config), flatten(resolve_parts(Config())), strict=True
            )
            if value != default and field not in ("data.dir", "data.path", "data.labels")
        ],
        evaluation=_evaluation(trained),
        logged=_logged(trained),
    )


def check_license(license: str) -> None:
    """Refuses what can't stand in the header of a card.

    Raises:
        UserError: If it is not an identifier of letters, digits, dots and dashes.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise UserError(f"--license is '{license}' but must be as the hub spells it, e.g. apache-2.0, mit or other")


def _evaluation(trained: TrainedModel) -> dict[str, Any] | None:
    """What `evaluate` measured of these parameters, if anything."""
    for path in trained.folder.evaluations(trained.replica):
        if not path.is_file():
            continue
        try:
            found = read_json(path)
            for each in found.get("replicas", [found]):
                if each.get("params_digest") == trained.params_digest:
                    return each
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} can't be read ({one_line(error)}); evaluate again, or delete it") from error
    return None


def _logged(trained: TrainedModel) -> dict[str, Any] | None:
    """What training measured of these parameters on test images, if anything."""
    rows = [row for row in read_rows(trained.folder.metrics) if (row["split"], row["step"]) == ("test", trained.step)]
    if not rows:
        return None
    row, error = rows[-1], rows[-1].get("elbo_standard_error")
    terms = {name: row[name] for name in ("elbo", "reconstruction", "kl")}
    if "replicas" in row:
        error = None
        terms |= {name: row["replicas"][name][trained.replica] for name in terms if name in row["replicas"]}
    return {**terms, "error": error, "num_images": row["num_images"]}
