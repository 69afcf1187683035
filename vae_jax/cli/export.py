"""`export`: writes a trained model as a folder that others can use."""

import pathlib

from absl import flags

from vae_jax.cli.flags import Flags, define_run
from vae_jax.cli.opening import open_chosen
from vae_jax.cli.terminal import say
from vae_jax.errors import UserError
from vae_jax.export import check_license, write_export
from vae_jax.files import check_output, new_folder


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_run(values)
    flags.DEFINE_string("output", None, "folder to make, e.g. exported/mnist", flag_values=values)
    flags.DEFINE_string("license", "unknown", "of the parameters, as the hub spells it", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    if not values["output"]:
        raise UserError("no folder to make is named; add --output=FOLDER, e.g. --output=exported/mnist")
    check_license(values["license"])
    output = pathlib.Path(values["output"])
    check_output(output)
    trained = open_chosen(values)
    with new_folder(output) as unfinished:
        write_export(unfinished, trained, output.resolve().name, values["license"])
        names = [f"{path.name} ({path.stat().st_size:,} bytes)" for path in sorted(unfinished.iterdir())]
    say(f"step {trained.step} in {output}: {', '.join(names)}")
    say(f"use it with vae_jax.load('{output}'), or without vae_jax as its README.md shows")
