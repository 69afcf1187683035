"""`sample`: images drawn from a trained model."""

import pathlib

from absl import flags

from vae_jax.cli.flags import Flags, define_replica, define_seed, define_workdir
from vae_jax.cli.show import SHOWS, manifold_grid, sample_grid
from vae_jax.cli.terminal import say
from vae_jax.escaping import counted
from vae_jax.files import check_output
from vae_jax.memory import check_images_fit
from vae_jax.pictures import write_png
from vae_jax.trained import open_run


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_workdir(values)
    define_replica(values)
    flags.DEFINE_integer("num_images", 64, "how many", flag_values=values, lower_bound=1)
    flags.DEFINE_integer("label", None, "class, for a conditional model; each in turn if not given", flag_values=values)
    define_seed(values, "what they are drawn from")
    flags.DEFINE_enum("show", "mean", SHOWS, "the mean of p(x|z) (probabilities) or a sample of it", flag_values=values)
    flags.DEFINE_boolean("manifold", False, "z at the quantiles of a two-dimensional prior", flag_values=values)
    flags.DEFINE_string("output", None, "PNG file; in the run's images folder if not given", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    trained = open_run(values["workdir"], values["checkpoint"], values["replica"], values["allow_custom"])
    show = values["show"]
    kind = "manifold" if values["manifold"] else "samples"
    default = trained.folder.images / f"{kind}_{show}_step{trained.step}{trained.suffix}.png"
    output = pathlib.Path(values["output"] or default)
    check_output(output, (".png",))
    check_images_fit(values["num_images"], trained.kind.image_shape)
    arguments = trained.model, trained.params, values["num_images"], values["seed"], show
    picture = manifold_grid(*arguments) if values["manifold"] else sample_grid(*arguments, values["label"])
    write_png(output, picture)
    say(f"{kind}: {counted(values['num_images'], 'image')} (the {show} of p(x|z)) of step {trained.step} in {output}")
