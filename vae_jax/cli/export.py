"""`export`: a trained model as a folder to hand over."""

import pathlib

from absl import flags

from vae_jax.cli.flags import Flags, define_replica, define_workdir
from vae_jax.cli.terminal import say
from vae_jax.errors import UserError
from vae_jax.exported import check_clean_reload, check_license, write_export
from vae_jax.files import check_new_folder, new_folder
from vae_jax.trained import open_run


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_workdir(values)
    define_replica(values)
    flags.DEFINE_string("output", None, "folder to make, e.g. exported/mnist", flag_values=values)
    flags.DEFINE_string("license", "unknown", "of the parameters, as the hub spells it", flag_values=values)
    meaning = "reload it in a process without vae_jax and compare it with the model"
    flags.DEFINE_boolean("verify", True, meaning, flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    if not values["output"]:
        raise UserError("no folder to make is named; add --output=FOLDER, e.g. --output=exported/mnist")
    check_license(values["license"])
    output = pathlib.Path(values["output"])
    check_new_folder(output)
    trained = open_run(values["workdir"], values["checkpoint"], values["replica"], values["allow_custom"])
    difference = None
    with new_folder(output) as unfinished:
        write_export(unfinished, trained, output.resolve().name, values["license"])
        if values["verify"]:
            difference = check_clean_reload(
                unfinished, trained.model, trained.params, trained.kind.image_shape, trained.config.model.dtype
            )
        names = [f"{path.name} ({path.stat().st_size:,} bytes)" for path in sorted(unfinished.iterdir())]
    say(f"step {trained.step} in {output}: {', '.join(names)}")
    if difference is not None:
        say(f"reloaded in a process without vae_jax, it differs from the model by {difference:.1e} at most")
    say(f"it is used with vae_jax.load('{output}'), or without vae_jax as its README.md shows")
