"""`sample`: images drawn from a trained model."""

from absl import flags

from vae_jax.cli.flags import Flags, define_run, define_show, define_told, read_context
from vae_jax.cli.opening import open_for_output
from vae_jax.cli.show import manifold_grid, sample_grid
from vae_jax.cli.terminal import say
from vae_jax.errors import UserError
from vae_jax.escaping import counted
from vae_jax.memory import check_images_fit
from vae_jax.pictures import write_png


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_run(values)
    flags.DEFINE_integer("num_images", 64, "how many", flag_values=values, lower_bound=1)
    define_told(values, "each in turn", "needed")
    define_show(values, "they")
    flags.DEFINE_boolean("manifold", False, "z at the quantiles of a two-dimensional prior", flag_values=values)
    flags.DEFINE_string("output", None, "PNG file; in the run's images folder if not given", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    show, kind = values["show"], "manifold" if values["manifold"] else "samples"
    trained, output = open_for_output(values, f"images/{kind}_{show}_step{{step}}", ".png")
    check_images_fit(values["num_images"], trained.kind.image_shape)
    context = read_context(values, trained.context_names)
    if context is None and trained.context_names and not values["manifold"]:
        raise UserError(f"this model is told numbers; add --context={','.join(trained.context_names)}")
    arguments = trained.model, trained.variables, values["num_images"], values["seed"], show
    told = values["label"], context
    write_png(output, manifold_grid(*arguments) if values["manifold"] else sample_grid(*arguments, *told))
    say(f"{kind}: {counted(values['num_images'], 'image')} (the {show} of p(x|z)) of step {trained.step} in {output}")
