"""The charts of `diagnose`."""

import pathlib
from collections.abc import Sequence
from typing import Any

from vae_jax.evaluation import Spectrum
from vae_jax.files import replacing

_SIZE = (6.4, 4.0)
_DOTS_PER_INCH = 120


def spectrum_chart(path: pathlib.Path, spectra: dict[str, Spectrum]) -> None:
    """Power by spatial frequency, a line for each kind of image."""
    figure, axes = _axes()
    for name, spectrum in spectra.items():
        wide = 2.5 if name == "data" else 1.5
        axes.semilogy(spectrum.frequency, spectrum.power, label=name.replace("_", " "), linewidth=wide)
    axes.set_xlabel("spatial frequency (cycles per pixel)")
    axes.set_ylabel("power")
    axes.legend()
    _write(figure, path)


def kl_chart(path: pathlib.Path, kl_per_dimension: Sequence[float]) -> None:
    """KL of each latent dimension, the largest first."""
    figure, axes = _axes()
    axes.bar(range(1, len(kl_per_dimension) + 1), sorted(kl_per_dimension, reverse=True))
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("latent dimension, by its KL")
    axes.set_ylabel("KL of q(z|x) to p(z) in nats, mean over images")
    _write(figure, path)


def _axes() -> tuple[Any, Any]:
    # Importing it takes a second that the other verbs needn't wait.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _write(figure: Any, path: pathlib.Path) -> None:
    with replacing(path, "make room, then run it again") as unfinished:
        figure.savefig(unfinished, format="png")
