"""`reconstruct`: images of a split beside what the model makes of them."""

import pathlib

from absl import flags

from vae_jax.cli.flags import Flags, define_replica, define_seed, define_workdir
from vae_jax.cli.show import SHOWS, reconstruction_grid
from vae_jax.cli.terminal import say
from vae_jax.escaping import counted
from vae_jax.files import check_output
from vae_jax.pictures import write_png
from vae_jax.trained import open_run


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_workdir(values)
    define_replica(values)
    flags.DEFINE_string("split", "test", "train, validation or test", flag_values=values)
    flags.DEFINE_integer("num_images", 32, "how many, from the start of the split", flag_values=values, lower_bound=1)
    define_seed(values, "what samples of p(x|z) are drawn from")
    flags.DEFINE_enum("show", "mean", SHOWS, "the mean of p(x|z) (probabilities) or a sample of it", flag_values=values)
    flags.DEFINE_string("output", None, "PNG file; in the run's images folder if not given", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    trained = open_run(values["workdir"], values["checkpoint"], values["replica"], values["allow_custom"])
    show, name = values["show"], values["split"]
    default = trained.folder.images / f"reconstructions_{name}_{show}_step{trained.step}{trained.suffix}.png"
    output = pathlib.Path(values["output"] or default)
    check_output(output, (".png",))
    split = trained.data.for_evaluation(name)
    num_images = min(values["num_images"], len(split.images))
    picture = reconstruction_grid(trained.model, trained.params, split, num_images, show, values["seed"])
    write_png(output, picture)
    say(f"{counted(num_images, f'{name} image')}, each left of its reconstruction (the {show} of p(x|z)), in {output}")
