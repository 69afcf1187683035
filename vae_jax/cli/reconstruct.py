"""`reconstruct`: images of a split beside what the model makes of them."""

from absl import flags

from vae_jax.cli.flags import Flags, define_run, define_show
from vae_jax.cli.opening import open_for_output
from vae_jax.cli.show import reconstruction_grid
from vae_jax.cli.terminal import say
from vae_jax.escaping import counted
from vae_jax.pictures import write_png


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_run(values)
    flags.DEFINE_string("split", "test", "train, validation or test", flag_values=values)
    flags.DEFINE_integer("num_images", 32, "how many, from the start of the split", flag_values=values, lower_bound=1)
    define_show(values)
    flags.DEFINE_string("output", None, "PNG file; in the run's images folder if not given", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    show, name = values["show"], values["split"]
    trained, output = open_for_output(values, f"images/reconstructions_{name}_{show}_step{{step}}", ".png")
    split = trained.data.for_evaluation(name)
    num_images = min(values["num_images"], len(split.images))
    write_png(output, reconstruction_grid(trained.model, trained.variables, split, num_images, show, values["seed"]))
    say(f"{counted(num_images, f'{name} image')}, each left of its reconstruction (the {show} of p(x|z)), in {output}")
