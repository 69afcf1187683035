"""`decode`: latents from a file to images."""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from vae_jax.cli.flags import Flags, define_run, define_show, define_told, read_context
from vae_jax.cli.opening import open_for_output
from vae_jax.cli.show import decode_all
from vae_jax.cli.terminal import say
from vae_jax.data.archives import read_arrays
from vae_jax.errors import UserError
from vae_jax.escaping import counted
from vae_jax.files import replacing
from vae_jax.pictures import grid, write_png
from vae_jax.trained import TrainedModel
from vae_jax.trained.inputs import check_labels, check_latents

_COLUMNS, _SHOWN = 16, 1024


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_run(values)
    flags.DEFINE_string("latents", None, "file from encode, or .npy with an array [N, D]", flag_values=values)
    define_told(values, "those of the file", "those of the file")
    define_show(values)
    meaning = "a .png with a grid, or an .npz with `images` or `rows`; a .png in the run's images folder if not given"
    flags.DEFINE_string("output", None, meaning, flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    if not values["latents"]:
        raise UserError("no latents are named; add --latents=FILE, e.g. what encode wrote")
    trained, output = open_for_output(values, f"images/decoded_{values['show']}", ".png", ".npz")
    z, labels = read_latents(values["latents"], trained, values["label"], read_context(values, trained.context_names))
    images = decode_all(trained.model, trained.variables, z, jax.random.key(values["seed"]), values["show"], labels)
    made = f"{counted(len(images), 'image')} (the {values['show']} of p(x|z))"
    if output.suffix == ".png":
        write_png(output, grid(images[:_SHOWN], _COLUMNS))
        say(f"{min(len(images), _SHOWN)} of {made} in {output}")
        return
    if trained.kind.values in ("levels", "continuous"):
        images = np.round(255.0 * np.clip(images, 0.0, 1.0)).astype(np.uint8)
    with replacing(output, "choose another --output") as unfinished, unfinished.open("wb") as file:
        if images.ndim == 2:
            np.savez_compressed(file, rows=images)
        else:
            np.savez_compressed(file, images=images)
    say(f"{made}, {images.dtype}{list(images.shape)}, in {output}")


def read_latents(
    path: str, trained: TrainedModel, label: int | None, context: np.ndarray | None = None
) -> tuple[jax.Array, jax.Array | None]:
    """Latents as an array that fits the model, and the classes or contexts that go with them."""
    mend = "set --latents to what encode wrote"
    arrays = read_arrays(path, ("z", "mean"), ("labels", "context"), "latents", mend, single="z")
    z = check_latents(trained.model, arrays["z" if "z" in arrays else "mean"], f"'{path}'")
    names, conditional = trained.context_names, bool(trained.model.context_size)
    told = arrays.get("context" if names else "labels") if conditional else None
    if context is not None:
        told = context[0]
    elif label is not None:
        told = np.full(len(z), label)
    if conditional and told is None:
        wanted, add = ("numbers", f"--context={','.join(names)}") if names else ("labels", "--label=CLASS")
        raise UserError(f"this model is told {wanted}, and the file has none; add {add}")
    labels = check_labels(trained.model, trained.kind, told, len(z))
    return jnp.asarray(z), None if labels is None else jnp.asarray(labels)
