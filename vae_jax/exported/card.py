"""The model card: what a model is, how good, how it was made, and how it is used."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_jax.config import Config, flatten
from vae_jax.errors import UserError
from vae_jax.files import read_json
from vae_jax.printable import one_line
from vae_jax.priors import StandardNormal
from vae_jax.runs import read_rows
from vae_jax.trained import TrainedRun

_PARTS = ("network", "hidden", "latents", "likelihood", "posterior", "prior", "conditional")
_EXPORT_GUARANTEES = "https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees"


def model_card(
    trained: TrainedRun, name: str, license: str, start: Mapping[str, Any], weights: Mapping[str, np.ndarray]
) -> str:
    """A `README.md` as the Hugging Face hub reads it.

    Args:
        trained: The model.
        name: Its title.
        license: Of the parameters, as the hub spells it.
        start: What the manifest says of the run's last start.
        weights: The parameters, for how many there are.

    Raises:
        UserError: If the license is no identifier, or `evaluation.json` can't be read.

    Source:
        https://huggingface.co/docs/hub/model-cards
    """
    sections = [
        _header(trained, license),
        f"# {name}\n\n{_what(trained, weights)}",
        f"## Measured\n\n{_measured(trained)}",
        f"## Use without vae_jax\n\n{_use_without(trained)}",
        f"## Use with vae_jax\n\n{_use_with(trained)}",
        f"## What goes in and comes out\n\n{_formats(trained)}",
        f"## How it was trained\n\n{_training(trained, start)}",
        f"## What to keep in mind\n\n{_cautions()}",
    ]
    return "\n\n".join(sections) + "\n"


def check_license(license: str) -> None:
    """Refuses what can't stand in the header of a card.

    Raises:
        UserError: If it is no identifier of letters, digits, dots and dashes.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise UserError(f"--license is '{license}' but must be as the hub spells it, e.g. apache-2.0, mit or other")


def _header(trained: TrainedRun, license: str) -> str:
    check_license(license)
    makes_images = trained.model.posterior.has_density and not trained.model.num_classes
    task = "unconditional-image-generation" if makes_images else "image-feature-extraction"
    tags = ("vae", "variational-autoencoder", "jax", "flax", "stablehlo")
    lines = [f"license: {license}", "library_name: vae_jax", f"pipeline_tag: {task}", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---"])


def _what(trained: TrainedRun, weights: Mapping[str, np.ndarray]) -> str:
    height, width, channels = trained.kind.image_shape
    colours = {1: "grey ", 3: "colour "}.get(channels, "")
    count = sum(array.size for array in weights.values())
    rows = [f"| {part} | `{_text(getattr(trained.config.model, part))}` |" for part in _PARTS]
    return (
        f"A variational autoencoder of {colours}images of {height}×{width}×{channels}: an encoder q(z|x) to "
        f"{trained.model.prior.latents} latents and a decoder p(x|z), {count:,} parameters, trained with vae_jax for "
        f"{trained.step} steps.\n\n| part | |\n|---|---|\n" + "\n".join(rows)
    )


def _measured(trained: TrainedRun) -> str:
    """The evaluation of these parameters, or what training measured of them."""
    evaluation = _evaluation(trained)
    if evaluation is not None:
        return _evaluated(evaluation)
    rows = [row for row in read_rows(trained.folder.metrics) if (row["split"], row["step"]) == ("test", trained.step)]
    if not rows:
        return "Nothing was measured of these parameters."
    return _logged(rows[-1], trained)


def _evaluation(trained: TrainedRun) -> dict[str, Any] | None:
    """What was evaluated of these parameters, if anything."""
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


def _evaluated(result: Mapping[str, Any]) -> str:
    def row(title: str, entry: Mapping[str, Any], digits: int = 3) -> str:
        values = (entry["mean"], entry["standard_error_images"], entry["standard_error_estimator"])
        return " | ".join([f"| {title}", *("" if value is None else f"{value:.{digits}f}" for value in values)]) + " |"

    return "\n".join(
        [
            f"{result['num_images']} {result['split']} images, K = {result['num_samples']}, {result['unit']}; density: "
            f"{result['measure']}. One error is that of the images, which are a sample, one that of the estimator.",
            "",
            "| | mean | error (images) | error (estimator) |",
            "|---|---|---|---|",
            row("log p(x)", result["log_likelihood"]),
            row("bits per dimension", result["bits_per_dim"], 4),
            row("ELBO", result["elbo"]),
            f"| reconstruction | {result['reconstruction']:.3f} | | |",
            f"| KL | {result['kl']:.3f} | | |",
        ]
    )


def _logged(row: Mapping[str, Any], trained: TrainedRun) -> str:
    each = {name: row["replicas"][name][trained.replica] if "replicas" in row else row[name] for name in _TERMS}
    error = None if "replicas" in row else row.get("elbo_standard_error")
    bar = "" if error is None else f" ± {error:.2f} (images)"
    images = f"{row['num_images']} test images, nats per image; density: {trained.model.likelihood.base_measure}"
    if each["elbo"] is None:
        return f"{images}: reconstruction {each['reconstruction']:.2f}; no bound, since q(z|x) has no density."
    return f"{images}: ELBO {each['elbo']:.2f}{bar}, reconstruction {each['reconstruction']:.2f}, KL {each['kl']:.2f}."


_TERMS = ("elbo", "reconstruction", "kl")


def _use_without(trained: TrainedRun) -> str:
    height, width, channels = trained.kind.image_shape
    latents = trained.model.prior.latents
    conditional = bool(trained.model.num_classes)
    label = ", label" if conditional else ""
    code = [
        "import jax",
        "import numpy as np",
        "from jax import export",
        "from safetensors.numpy import load_file",
        "",
        'params = load_file("model.safetensors")',
        'encoder = export.deserialize(open("encoder.jaxexport", "rb").read())',
        'decoder = export.deserialize(open("decoder.jaxexport", "rb").read())',
        "",
        f"x = np.zeros((5, {height}, {width}, {channels}), np.float32)  # your images, any number of them",
        *(["label = np.zeros(5, np.int32)  # their classes"] if conditional else []),
        f'z = encoder.call(params, x{label})["mean"]  # [5, {latents}]',
        f"reconstructions = decoder.call(params, z{label})  # [5, {height}, {width}, {channels}]",
    ]
    prior = trained.model.prior
    if isinstance(prior, StandardNormal) and trained.model.posterior.has_density:
        code += [
            "",
            f"z = jax.random.normal(jax.random.key(0), (5, {latents}))  # p(z)",
            f"samples = decoder.call(params, z{label})  # means of p(x|z)",
        ]
    note = (
        "" if isinstance(prior, StandardNormal) else f"\n\nTo draw from p(z), a {type(prior).__name__}, takes vae_jax."
    )
    return (
        "`pip install jax flatbuffers safetensors`, then, in this folder:\n\n```python\n"
        + "\n".join(code)
        + f"\n```\n\nBoth functions are StableHLO for CPU, CUDA and TPU.{note}"
    )


def _use_with(trained: TrainedRun) -> str:
    label = ", label" if trained.model.num_classes else ""
    sampled = "samples = model.sample(jax.random.key(0), 16)\n" if trained.model.posterior.has_density else ""
    measured = (
        f"nats = model.log_likelihood(images{label and ', label=label'}, num_samples=500)\n"
        if trained.model.posterior.has_density
        else ""
    )
    return (
        "```python\nimport jax\nimport vae_jax\n\n"
        'model = vae_jax.load(".")\n'
        f"z = model.encode(images{label})  # uint8, as they are; or float\n"
        f"reconstructions = model.decode(z{label})\n{sampled}{measured}```"
    )


def _formats(trained: TrainedRun) -> str:
    height, width, channels = trained.kind.image_shape
    latents, classes = trained.model.prior.latents, trained.model.num_classes
    binarization, max_value = trained.config.data.binarization, trained.kind.max_value
    pixels = (
        f"grey levels divided by {max_value}"
        if binarization == "none"
        else f"0 or 1; from grey levels up to {max_value}: "
        + ("1 where above the half" if binarization == "threshold" else f"1 with probability level / {max_value}")
    )
    logvar = (
        f"; `logvar` float32 [b, {latents}], the logs of its variances"
        if getattr(trained.model.posterior, "factorized", False)
        else ""
    )
    label = f"\n- `label`: int32 [b], from 0 to {classes - 1}." if classes else ""
    given = ", label" if classes else ""
    return (
        "`params` is the dictionary that `load_file` gives; b is any number from 1.\n\n"
        f"- `encoder.call(params, x{given})`: `mean` float32 [b, {latents}], the mean of q(z|x) (of a flow: where it "
        f"takes the mean of its base){logvar}.\n"
        f"- `decoder.call(params, z{given})`: float32 [b, {height}, {width}, {channels}], the mean of p(x|z), in the "
        "unit of x.\n"
        f"- `x`: float32 [b, {height}, {width}, {channels}], rows from the top: {pixels}.\n"
        f"- `z`: float32 [b, {latents}].{label}"
    )


def _training(trained: TrainedRun, start: Mapping[str, Any]) -> str:
    config = trained.config
    data, versions = start.get("data") or {}, start.get("versions") or {}
    named = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
    kind = f"{config.data.binarization} binarization" if config.data.binarization != "none" else "grey levels"
    lines = [
        f"- Data: {data.get('name', config.data.source)}, {kind}"
        + (f", fingerprint `{data['fingerprint']}`" if "fingerprint" in data else "")
        + ".",
        f"- Steps: {trained.step} of {config.train.batch_size} images.",
        *([f"- Devices: {', '.join(sorted(set(start['devices'])))}."] if start.get("devices") else []),
        *([f"- Versions: {named}."] if named else []),
    ]
    changed = [
        f"- `{field} = {_text(value)}`"
        for (field, value, _), (_, default, _) in zip(flatten(config), flatten(Config()), strict=True)
        if value != default and field not in ("data.dir", "data.path")
    ]
    note = "\n\nSettings that differ from the defaults (all are in `config.json`):\n\n" if changed else ""
    return "\n".join(lines) + note + "\n".join(changed)


def _cautions() -> str:
    return (
        "- It knows images like those it was trained on. Of others it gives latents and pictures too, which say "
        "nothing.\n"
        "- Means of p(x|z) look smoother than images do; `sample` of vae_jax draws from p(x|z).\n"
        "- GPUs and TPUs may round products more coarsely than CPUs do, as JAX lets them by default.\n"
        f"- JAX reads `.jaxexport` files for [half a year]({_EXPORT_GUARANTEES}) at least. The parameters have no such "
        "term: from them `vae_jax.load` makes the model anew.\n"
        "- `sha256sum -c SHA256SUMS` says whether the files are whole. Nothing in them is pickled. The `.jaxexport` "
        "files are programs, for the device: call them if you trust where they are from."
    )


def _text(value: Any) -> str:
    return str(value)
