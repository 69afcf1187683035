"""What a run's files say of it: its result, its curves, its config and where it came from."""

import collections
import math
import pathlib
from typing import Any, NamedTuple

import jax
import jinja2

from vae_jax.build import resolve_parts, shortened
from vae_jax.build.model import OF_MODEL
from vae_jax.config import Config, flatten
from vae_jax.diagnosis.summary import sentences, table
from vae_jax.files import read_json
from vae_jax.models import num_latents
from vae_jax.runs import RunFolder, read_rows
from vae_jax.trained import TrainedModel

_TERMS = ("elbo", "reconstruction", "kl")
_TITLES = {"log_likelihood": "log p(x)", "elbo": "ELBO", "kl": "KL"}
# What each error bar of a number is of.
_ERRORS = {
    "standard_error_images": "images",
    "standard_error_estimator": "estimator",
    "stddev": "standard deviation between seeds",
}
_MOST_ROWS = 1000
_SPLITS = ("test", "validation", "train")


class Quantity(NamedTuple):
    """A number of the run, in nats per image.

    Attributes:
        name: What it is.
        value: Its mean.
        errors: Each error bar and what it is of.
    """

    name: str
    value: float
    errors: tuple[tuple[float, str], ...] = ()


class Result(NamedTuple):
    """How good the model is.

    Attributes:
        quantities: The one to quote first.
        source: What they were measured on, and by what.
    """

    quantities: tuple[Quantity, ...]
    source: str


def images_of(count: int, split: str) -> str:
    """So many images of a split, in words."""
    return f"{count:,} {split} image{'' if count == 1 else 's'}"


def read_result(trained: TrainedModel) -> Result | None:
    """The evaluation of these parameters, else what training measured; None without either."""
    for path in trained.folder.evaluations(trained.replica):
        evaluation = _read(path)
        try:
            if evaluation is not None and trained.params_digest in _digests(evaluation):
                return _of_evaluation(evaluation)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
            pass  # Written by another version: training has measured too.
    rows = [row for row in read_rows(trained.folder.metrics) if row["step"] == trained.step]
    measured = {row["split"]: row for row in rows}
    found = [measured[split] for split in _SPLITS if split in measured]
    return _of_row(found[0]) if found else None


def _of_evaluation(evaluation: dict[str, Any]) -> Result:
    images = images_of(evaluation["num_images"], evaluation["split"])
    source = f"{images}, importance sampling with K = {evaluation['num_samples']:,}, density: {evaluation['measure']}"
    found = evaluation
    if "over_replicas" in evaluation:
        found = evaluation["over_replicas"]
        source += f", mean of {evaluation['num_replicas']} seeds"
    return Result(tuple(_quantity(name, found[name]) for name in ("log_likelihood", *_TERMS)), source)


def _quantity(name: str, found: Any, **errors: Any) -> Quantity:
    """A number of an evaluation or a row, with the error bars that it has."""
    if isinstance(found, dict):
        found, errors = found["mean"], found
    bars = tuple((errors[key], of) for key, of in _ERRORS.items() if errors.get(key) is not None)
    return Quantity(_TITLES.get(name, name), float(found), bars)


def _of_row(row: dict[str, Any]) -> Result:
    images = images_of(row["num_images"], row["split"]) if "num_images" in row else f"{row['split']} images"
    if row["elbo"] is None:
        only = _quantity("reconstruction", row["reconstruction"])
        return Result((only,), f"{images}; no bound, since q(z|x) has no density")
    errors = {"standard_error_images": row.get("elbo_standard_error"), "stddev": row.get("elbo_spread")}
    rest = (_quantity(name, row[name]) for name in _TERMS[1:])
    return Result((_quantity("elbo", row["elbo"], **errors), *rest), f"{images}, measured in training")


def read_curves(folder: RunFolder) -> dict[str, dict[str, list[Any]]]:
    """ELBO, reconstruction and KL over the steps, by split; with replicas their mean, and the spread as `*_spread`.

    Of very many rows every n-th is taken, and the last.
    """
    rows = read_rows(folder.metrics)
    curves = {}
    for split in reversed(_SPLITS):
        of_split = [row for row in rows if row["split"] == split]
        every = math.ceil(len(of_split) / _MOST_ROWS) or 1
        kept = of_split[::-1][::every][::-1]
        names = ["step", "epoch", *_TERMS, *(f"{term}_spread" for term in _TERMS)]
        if kept:
            curves[split] = {name: [row.get(name) for row in kept] for name in names if name in kept[0]}
    return curves


def diagnosis_path(trained: TrainedModel) -> pathlib.Path:
    """Where `diagnose` puts what it finds on test images."""
    return trained.folder.root / f"diagnosis{trained.suffix}.json"


def read_diagnosis(trained: TrainedModel) -> dict[str, Any] | None:
    """The sentences and the table of `diagnosis.json`, where it can be read and is of these parameters."""
    found = _read(diagnosis_path(trained))
    try:
        if found is None or found["params_digest"] != trained.params_digest:
            return None
        return {
            "sentences": sentences(found),
            "table": table(found),
            "step": int(found["step"]),
            "num_images": int(found["likelihood"]["elbo"]["num_images"]),
            "split": found["split"],
        }
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, jinja2.UndefinedError):
        return None  # Written by another version.


def left_out(trained: TrainedModel) -> list[str]:
    """Which results of other verbs aren't shown, since they are of other parameters, in sentences."""
    paths = {
        **dict.fromkeys(trained.folder.evaluations(trained.replica), "evaluate"),
        diagnosis_path(trained): "diagnose",
    }
    return [
        f"{path.name} is not of these parameters, or can't be read; {verb} writes it anew."
        for path, verb in paths.items()
        if path.exists()
        and (
            trained.params_digest not in _digests(_read(path) or {})
            or (verb == "diagnose" and read_diagnosis(trained) is None)
        )
    ]


def unfinished(trained: TrainedModel) -> list[str]:
    """That the run was stopped before its end, in a sentence; none where it has come to it."""
    train, rows = trained.config.train, [row for row in read_rows(trained.folder.metrics) if row.get("epoch")]
    steps_per_epoch = round(rows[-1]["step"] / rows[-1]["epoch"]) if rows else 0
    last, end = trained.folder.last_step(), train.num_steps or train.num_epochs * steps_per_epoch
    return [f"The run is unfinished: step {last:,} of {end:,}."] if last < end else []


def _digests(result: dict[str, Any]) -> list[Any]:
    """Of the parameters that a result is about: one model's, or those of all replicas."""
    return [each.get("params_digest") for each in result.get("replicas") or [result] if isinstance(each, dict)]


def settings(config: Config) -> list[tuple[str, str, bool]]:
    """Every field of a config: its name, its value, and whether it differs from the default."""
    defaults = {name: value for name, value, _ in flatten(resolve_parts(Config()))}
    return [(name, str(value), value != defaults[name]) for name, value, _ in flatten(config)]


def read_starts(folder: RunFolder) -> list[dict[str, Any]]:
    """What the manifest says of each start of the run: time, command, versions, hardware."""
    try:
        return [_start(start) for start in (_read(folder.manifest) or {}).get("starts", [])]
    except (AttributeError, TypeError):
        return []  # Written by another version.


def last_start(trained: TrainedModel) -> dict[str, Any]:
    """The last of `read_starts`; with empty texts where there is none."""
    return (read_starts(trained.folder) or [_start({})])[-1]


def _start(start: dict[str, Any]) -> dict[str, Any]:
    data, versions = start.get("data") or {}, start.get("versions") or {}
    devices = collections.Counter(map(str, start.get("devices") or []))
    return {
        **{name: str(start.get(name) or "") for name in ("time", "commit", "platform", "processor", "python")},
        "command": " ".join(map(str, start.get("command") or [])),
        "devices": ", ".join(f"{count} × {name}" if count > 1 else name for name, count in devices.items()),
        "versions": {name: str(version) for name, version in versions.items() if version},
        "data": {name: str(data.get(name) or "") for name in ("name", "fingerprint")},
    }


def model_line(trained: TrainedModel) -> str:
    """The model in one line."""
    config, model = trained.config, trained.model
    parts = {part: shortened(f"model.{part}", getattr(config.model, part)) for part in OF_MODEL}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"]))
    told = f", told {', '.join(trained.context_names) or 'the class'}" if model.context_size else ""
    return (
        f"{parts['network']}, {num_latents(model)} latents{told}; p(x|z) {parts['likelihood']}, "
        f"q(z|x) {parts['posterior']}, p(z) {parts['prior']}; {parameters:,} parameters"
    )


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
