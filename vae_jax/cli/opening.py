"""Opens the model that a verb's flags name, and finds the file for what the verb makes."""

import pathlib

from vae_jax.cli.flags import Flags, output_file
from vae_jax.trained import TrainedModel, open_run


def open_chosen(values: Flags) -> TrainedModel:
    """The model that `--workdir`, `--checkpoint` and `--replica` name; see `open_run`."""
    return open_run(values["workdir"], values["checkpoint"], values["replica"], values["allow_custom"])


def open_for_output(values: Flags, default: str, *suffixes: str) -> tuple[TrainedModel, pathlib.Path]:
    """The model, and the file that `--output` names.

    Args:
        values: The flags.
        default: Name of the file in the run's folder without its suffix; `{step}` stands for the checkpoint's.
        suffixes: How the name of the file may end, the default's first.

    Raises:
        UserError: As `open_run` and `output_file`.
    """
    trained = open_chosen(values)
    name = f"{default.replace('{step}', str(trained.step))}{trained.suffix}{suffixes[0]}"
    return trained, output_file(values, trained.folder.root / name, *suffixes)
