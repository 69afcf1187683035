"""The report that puts runs side by side."""

from collections.abc import Sequence
from typing import Any

from vae_jax.models import num_latents
from vae_jax.report import facts
from vae_jax.report.latents import axes
from vae_jax.report.page import Page, render
from vae_jax.report.pictures import comparison_sheet
from vae_jax.report.run_page import encode_some
from vae_jax.trained import TrainedModel

_TITLES = ("log p(x)", "ELBO", "reconstruction", "KL")


def comparison_page(runs: Sequence[TrainedModel]) -> Page:
    """The page of several runs: results, curves, samples at the same latents, what differs.

    Args:
        runs: At least two.
    """
    names = _names(runs)
    rows, data, left_out, unfinished = [], [], [], []
    for name, trained in zip(names, runs, strict=True):
        encoded, _, problems = encode_some(trained)
        left_out += [f"{name}: {problem}" for problem in [*problems, *facts.left_out(trained)]]
        unfinished += [f"{name}: {sentence}" for sentence in facts.unfinished(trained)]
        result, start, sheet = facts.read_result(trained), facts.last_start(trained), comparison_sheet(trained, encoded)
        found = None if encoded is None else axes(trained, encoded)
        kl = None if encoded is None or encoded.kl is None else sorted(map(float, encoded.kl), reverse=True)
        rows.append(
            {
                "name": name,
                "quantities": {} if result is None else {each.name: each for each in result.quantities},
                "source": "" if result is None else result.source,
                "active": "–" if found is None else f"{found.num_active} of {len(found.order)}",
                "step": trained.step,
                "model": facts.model_line(trained),
                "command": start["command"],
                "hardware": start["devices"],
                "has_samples": sheet is not None,
            }
        )
        data.append(
            {
                "name": name,
                "curves": facts.read_curves(trained.folder),
                "kl": kl,
                "samples": None if sheet is None else {"shown": len(sheet.images), "sheet": sheet},
            }
        )
    html = render(
        "comparison.html",
        {"runs": data},
        title=f"{', '.join(names)} – vae_jax",
        runs=rows,
        notes=[*_notes(runs), *unfinished, *left_out],
        titles=[title for title in _TITLES if any(title in row["quantities"] for row in rows)],
        any_samples=any(row["has_samples"] for row in rows),
        samples_caption=_samples_caption(runs),
        any_kl=any(each["kl"] for each in data),
        differing=_differing(runs),
    )
    return Page(html, tuple(left_out))


def _names(runs: Sequence[TrainedModel]) -> list[str]:
    """What tells the folders apart: their names, or their whole paths where names are the same."""
    short = [trained.folder.root.resolve().name for trained in runs]
    return short if len(set(short)) == len(short) else [str(trained.folder.root) for trained in runs]


def _notes(runs: Sequence[TrainedModel]) -> list[str]:
    """Why numbers of these runs can't be compared, if they can't."""
    notes = []
    measures = {trained.model.measure for trained in runs}
    if len(measures) > 1:
        notes.append(f"Densities of different measures ({', '.join(sorted(measures))}) can't be compared in nats.")
    prints = {facts.last_start(trained)["data"]["fingerprint"] for trained in runs} - {""}
    binarized = {(trained.config.data.binarization, trained.config.data.seed) for trained in runs}
    if len(prints) > 1:
        notes.append("The runs were trained on different data: their nats are of different images.")
    elif len(binarized) > 1:
        notes.append("The runs see different pixels (data.binarization or data.seed differ), so nats don't compare.")
    return notes


def _samples_caption(runs: Sequence[TrainedModel]) -> str:
    drawn = [trained for trained in runs if "density" in trained.model.traits]
    text = "Means of p(x|z); the same place has the same z"
    if not all("standard_normal" in trained.model.traits for trained in drawn):
        return f"{text} where the prior is a standard normal; other priors draw with the same key."
    if len({num_latents(trained.model) for trained in drawn}) > 1:
        return f"{text}, as far as a model has these dimensions."
    return f"{text}."


def _differing(runs: Sequence[TrainedModel]) -> list[tuple[str, list[Any]]]:
    """Config fields whose values aren't the same in all runs."""
    columns = [facts.settings(trained.config) for trained in runs]
    fields = [(row[0][0], [value for _, value, _ in row]) for row in zip(*columns, strict=True)]
    return [(name, values) for name, values in fields if len(set(values)) > 1]
