"""The decoder as numbers that a page can compute with."""

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from vae_jax.evaluation import map_images
from vae_jax.models import Batch, Model, Variables, decode_flat
from vae_jax.report.payload import packed
from vae_jax.shapes import ImageIds
from vae_jax.sharding import own_device

# What decoder.js can compute: by these names.
ACTIVATIONS = {nn.relu: "relu", nn.tanh: "tanh", nn.gelu: "gelu", nn.silu: "silu"}
MOST_BYTES = 2_500_000
# Half of what a pixel of 8 bits can show; the page's own arithmetic has the other half.
_TOLERANCE = 0.5 / 255.0
_DECODED_AT_ONCE = 256


@functools.partial(jax.jit, static_argnums=0)
def _means(model: Model, variables: Variables, latents: Batch, _: ImageIds) -> jax.Array:
    return decode_flat(model, variables, latents.x, latents.context).mean()


def decoded(
    model: Model, variables: Variables, z: Float[np.ndarray, "n d"], labels: np.ndarray | None
) -> Float[np.ndarray, "n *event"]:
    """The mean of p(x|z) for each z."""
    function = functools.partial(_means, model, variables)
    return map_images(function, z.astype(np.float32), 1, _DECODED_AT_ONCE, own_device(), labels)


TOO_LARGE = f"The decoder's weights take more than the {MOST_BYTES / 1e6:g} MB that a page has room for"


def obstacle(model: Model) -> str:
    """Why `decoder.js` can't compute the mean of p(x|z), however few weights there are; nothing where it can.

    Args:
        model: The model.

    Returns:
        The beginning of a sentence.
    """
    parts: Any = model
    network: Any = getattr(parts, "decoder", None)
    likelihood: Any = getattr(parts, "likelihood", None)
    if getattr(parts, "rows", False):
        return "The examples are rows of numbers"
    if not getattr(network, "fully_connected", False):
        return "The decoder is no fully connected network of this package"
    if network.activation not in ACTIVATIONS:
        return f"The decoder's activation is none that a page can compute ({', '.join(ACTIVATIONS.values())})"
    if getattr(likelihood, "mean_in_page", None) is None:
        return f"The mean of p(x|z) is that of {type(likelihood).__name__}, which a page can't compute"
    return ""


def live_decoder(
    model: Model, variables: Variables, z: Float[np.ndarray, "n d"], labels: np.ndarray | None
) -> dict[str, Any] | None:
    """What `decoder.js` needs to compute the mean of p(x|z), for a fully connected decoder of moderate size.

    Weights are rounded to float16 where that moves no pixel by more than half of 1/255 at the latents that are given,
    else kept as float32.

    Args:
        model: The model.
        variables: Its variables.
        z: Latents to try the rounding at.
        labels: Their classes, for a conditional model.

    Returns:
        Layers, activation and image shape; None where the decoder is another network, the mean another function of its
        outputs, or the weights take more than `MOST_BYTES`.
    """
    if obstacle(model):
        return None
    parts: Any = model
    network = parts.decoder
    layers = [variables["params"]["decoder"][f"Dense_{index}"] for index in range(len(network.hidden) + 1)]
    exact = decoded(model, variables, z, labels)
    for dtype in (np.float16, np.float32):
        # Weights beyond the range of float16 become infinite, and are noticed below.
        with np.errstate(over="ignore"):
            rounded = jax.tree.map(lambda leaf, to=dtype: np.asarray(leaf).astype(to), layers)
        if sum(leaf.nbytes for leaf in jax.tree.leaves(rounded)) > MOST_BYTES:
            return None
        widened = {f"Dense_{i}": jax.tree.map(np.float32, layer) for i, layer in enumerate(rounded)}
        rounded_variables = {**variables, "params": {**variables["params"], "decoder": widened}}
        moved = decoded(model, rounded_variables, z, labels) - exact
        if np.abs(moved).max() <= _TOLERANCE:
            break
    height, width, outputs = network.image_shape
    return {
        "layers": [{name: packed(layer[name]) for name in ("kernel", "bias")} for layer in rounded],
        "activation": ACTIVATIONS[network.activation],
        "mean": parts.likelihood.mean_in_page,
        "height": height,
        "width": width,
        "outputs": outputs,
        "channels": exact.shape[-1],
        "latents": model.num_decoded,
        "classes": model.context_size,
    }
