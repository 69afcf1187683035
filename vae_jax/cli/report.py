"""`report`: a run, or several side by side, as one HTML page."""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from vae_jax.cli.flags import Flags, define_choice, output_file
from vae_jax.cli.terminal import say
from vae_jax.errors import UserError
from vae_jax.files import replacing
from vae_jax.report import comparison_page, report_page
from vae_jax.trained import TrainedModel, open_run


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    meaning = "folder of the run; give it several times to compare runs"
    flags.DEFINE_multi_string("workdir", None, meaning, flag_values=values)
    define_choice(values)
    meaning = "HTML file; report.html in the run's folder, or comparison.html in the first one's, if not given"
    flags.DEFINE_string("output", None, meaning, flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    folders = values["workdir"] or [None]
    _check_different(folders)
    runs = [open_run(folder, values["checkpoint"], values["replica"], values["allow_custom"]) for folder in folders]
    name = f"report{runs[0].suffix}.html" if len(runs) == 1 else "comparison.html"
    output = output_file(values, runs[0].folder.root / name, ".html")
    page = report_page(runs[0]) if len(runs) == 1 else comparison_page(runs)
    write_page(output, page.html)
    for line in page.left_out:
        say(line)
    say(f"{output}, {output.stat().st_size / 1e6:.1f} MB; open it in a browser")


def _check_different(folders: Sequence[str | None]) -> None:
    """Refuses a run that is named twice: it would be compared with itself."""
    places = [os.path.realpath(folder or "") for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"--workdir names the run in '{folder}' more than once; name each run once")


def write_report(trained: TrainedModel) -> pathlib.Path:
    """Writes `report.html` into the folder of a run."""
    output = trained.folder.root / "report.html"
    write_page(output, report_page(trained).html)
    return output


def write_page(output: pathlib.Path, page: str) -> None:
    """Writes a page, whole or not at all."""
    with replacing(output, "choose another --output") as unfinished:
        unfinished.write_text(page, encoding="utf-8", errors="backslashreplace", newline="\n")
