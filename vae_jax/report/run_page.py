"""The report of one run."""

from typing import Any

from vae_jax.errors import UserError
from vae_jax.report import facts
from vae_jax.report.latents import Encoded, encode, projection
from vae_jax.report.page import Page, render
from vae_jax.report.pictures import Pictures
from vae_jax.trained import TrainedModel

_MOST_CURVE_ROWS = 40


def report_page(trained: TrainedModel) -> Page:
    """The page of one run.

    What needs images is left out, and said to be, where the run's data can't be read.

    Args:
        trained: The run.
    """
    encoded, split, left_out = encode_some(trained)
    left_out += facts.left_out(trained)
    pictures = Pictures(trained, encoded)
    shown, axes = pictures.all(), pictures.axes
    curves = facts.read_curves(trained.folder)
    scatter, caption = _scatter(trained, encoded, split)
    notes = [*left_out, *_notes(trained, shown, axes.num_active, pictures.why_no_decoder)]
    kl = None if encoded is None else encoded.kl
    name = trained.folder.root.resolve().name
    html = render(
        "report.html",
        {"pictures": shown, "curves": curves, "scatter": scatter, "class_names": _class_names(trained)},
        title=f"{name} – vae_jax",
        name=name,
        data_name=facts.last_start(trained)["data"]["name"] or trained.config.data.source,
        step=trained.step,
        num_replicas=trained.config.num_seeds,
        result=facts.read_result(trained),
        model=facts.model_line(trained),
        notes=notes,
        curve_rows=_curve_rows(curves),
        has={
            "samples": shown["samples"]["shown"] if "samples" in shown else 0,
            "manifold": "manifold" in shown,
            "density": "density" in trained.model.traits,
        },
        live=pictures.decoder is not None,
        classes=_class_names(trained)[: shown["classes"]],
        split=split,
        num_encoded=0 if encoded is None else len(encoded.means),
        images_encoded="" if encoded is None else facts.images_of(len(encoded.means), split),
        num_pairs=len(shown["originals"].images) if encoded is not None else 0,
        num_picked=len(shown["interpolation"]["images"].images) if "interpolation" in shown else 0,
        num_active=axes.num_active,
        num_latents=len(axes.order),
        scatter_caption=caption,
        kl_total=None if kl is None else float(kl.sum()),
        kl_rows=[] if kl is None else [(int(dimension) + 1, float(kl[dimension])) for dimension in axes.order],
        diagnosis=facts.read_diagnosis(trained),
        starts=facts.read_starts(trained.folder),
        settings=facts.settings(trained.config),
    )
    return Page(html, tuple(left_out))


def encode_some(trained: TrainedModel) -> tuple[Encoded | None, str, list[str]]:
    """Images of the first split that has any, encoded; its name; and the reason, in a sentence, if there aren't any."""
    try:
        data = trained.data
        split = next(name for name in ("test", "validation", "train") if len(data.part(name).images))
        return encode(trained, data.for_evaluation(split)), split, []
    except (UserError, OSError) as error:
        reason = " ".join(str(error).split())
        return None, "", [f"The run's images can't be read, so what needs them is left out: {reason}."]


def _class_names(trained: TrainedModel) -> list[str]:
    """By label; empty where there are no labels."""
    return [trained.kind.class_name(label) for label in range(trained.kind.num_classes)]


def _scatter(trained: TrainedModel, encoded: Encoded | None, split: str) -> tuple[dict[str, Any] | None, str]:
    """Posterior means as points, and what to write above them."""
    if encoded is None:
        return None, ""
    size = trained.model.num_decoded
    labels = None if encoded.split.labels is None else encoded.split.labels.tolist()
    titles = ["z1", "z2"]
    found = projection(encoded.means[:, :size])
    shares = found.pop("shares")
    by_label = "" if labels is None else " by label"
    caption = f"Means of q(z|x) of {facts.images_of(len(encoded.means), split)}{by_label}"
    if size == 1 and labels is not None:
        found["y"], titles = labels, ["z1", "label"]
    elif size == 1:
        titles = ["z1", ""]
    elif shares is not None:
        titles = [f"principal component {number + 1} ({share:.0%})" for number, share in enumerate(shares)]
        caption += f", on the two principal components that hold {sum(shares):.0%} of their variance"
    return {**found, "labels": labels, "titles": titles}, f"{caption}."


def _notes(trained: TrainedModel, shown: dict[str, Any], num_active: int, why_no_decoder: str) -> list[str]:
    notes = []
    classes = trained.model.context_size
    if trained.config.num_seeds > 1:
        notes.append(
            f"Pictures are of replica {trained.replica} (seed {trained.config.seed + trained.replica}); curves are "
            f"means over {trained.config.num_seeds} replicas."
        )
    if "density" not in trained.model.traits:
        notes.append("A plain autoencoder has no distribution of z, so there are no samples from it.")
    if shown["decoder"] is None:
        notes.append(f"{why_no_decoder}, so pictures were computed beforehand instead of in this page.")
        if trained.context_names:
            notes.append("Samples are told the numbers of the first images, traversals their mean.")
        elif shown["classes"] < classes:
            notes.append(f"Traversals are there for the first {shown['classes']} of {classes} classes.")
    if not num_active:
        notes.append("No latent dimension tells images apart: the posterior has collapsed onto the prior.")
    return notes


def _curve_rows(curves: dict[str, dict[str, list[Any]]]) -> list[dict[str, Any]]:
    """The last rows of the measured splits, the newest first."""
    names = ("step", "elbo", "reconstruction", "kl")
    rows = [
        {"split": split, **dict(zip(names, values, strict=True))}
        for split, columns in curves.items()
        for values in zip(*(columns[name] for name in names), strict=True)
    ]
    measured = [row for row in rows if row["split"] != "train"] or rows
    return sorted(measured, key=lambda row: -row["step"])[:_MOST_CURVE_ROWS]
