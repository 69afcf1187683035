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
    shown, curves, name = pictures.all(), facts.read_curves(trained.folder), trained.folder.root.resolve().name
    images = "" if encoded is None else facts.images_of(len(encoded.means), split)
    class_names = [trained.kind.class_name(label) for label in range(trained.kind.num_classes)]
    scatter, caption = (None, "") if encoded is None else _scatter(encoded, trained.model.num_decoded, images)
    html = render(
        "report.html",
        {"pictures": shown, "curves": curves, "scatter": scatter, "class_names": class_names},
        title=f"{name} – vae_jax",
        name=name,
        data_name=facts.last_start(trained)["data"]["name"] or trained.config.data.source,
        trained=trained,
        has_density="density" in trained.model.traits,
        result=facts.read_result(trained),
        model=facts.model_line(trained),
        notes=[*left_out, *facts.unfinished(trained)],
        why_no_decoder=pictures.why_no_decoder,
        curve_rows=_curve_rows(curves),
        shown=shown,
        axes=pictures.axes,
        classes=class_names[: shown["classes"]],
        split=split,
        encoded=encoded,
        images_encoded=images,
        scatter_caption=caption,
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


def _scatter(encoded: Encoded, size: int, images: str) -> tuple[dict[str, Any], str]:
    """Posterior means as points, and what to write above them.

    Args:
        encoded: The images.
        size: How many numbers of z the decoder sees.
        images: How many of which split they are.
    """
    labels = None if encoded.split.labels is None else encoded.split.labels.tolist()
    found, titles = projection(encoded.means[:, :size]), ["z1", "z2"]
    shares = found.pop("shares")
    caption = f"Means of q(z|x) of {images}{'' if labels is None else ' by label'}"
    if size == 1:
        titles = ["z1", "" if labels is None else "label"]
        found["y"] = found["y"] if labels is None else labels
    elif shares is not None:
        titles = [f"principal component {number + 1} ({share:.0%})" for number, share in enumerate(shares)]
        caption += f", on the two principal components that hold {sum(shares):.0%} of their variance"
    return {**found, "labels": labels, "titles": titles}, f"{caption}."


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
