"""Encoder and decoder as programs: StableHLO for any batch size, on CPU, CUDA and TPU."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float

from vae_jax.models import Batch, Context, Model, decode_flat, init_variables, num_latents
from vae_jax.trained import describe_posterior

PLATFORMS = ("cpu", "cuda", "tpu")

FlatParams = dict[str, Any]


def flat_params(params: Any) -> dict[str, np.ndarray]:
    """Parameters by flat names: `params["encoder"]["Dense_0"]["kernel"]` is `encoder.Dense_0.kernel`."""
    # In the order of C, which a file of raw bytes takes for granted.
    return {name: np.array(leaf, order="C") for name, leaf in flat(params).items()}


def flat(tree: Any) -> FlatParams:
    """A nested dictionary's leaves by the names that lead to them, joined by dots."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def params_like(model: Model, image_shape: tuple[int, int, int]) -> Any:
    """Shape and type of each parameter of a model; nothing is computed."""
    return jax.eval_shape(lambda: init_variables(model, jax.random.key(0), image_shape))["params"]


def nested_params(named: FlatParams, like: Any) -> Any:
    """Parameters as the model has them.

    Args:
        named: From `flat_params`.
        like: From `params_like`.
    """
    return jax.tree.unflatten(jax.tree.structure(like), [named[name] for name in flat(like)])


def serialized_functions(model: Model, image_shape: tuple[int, int, int]) -> dict[str, bytes]:
    """The two functions of a model, as `jax.export.deserialize` takes them.

    Args:
        model: The model.
        image_shape: Height, width, channels.

    Returns:
        `encoder`, `(params, x[, label]) -> describe_posterior(...)`, and `decoder`, `(params, z[, label]) -> ` mean of
        p(x|z). `params` are the flat ones of the whole model; labels are there where the model is conditional.

    Source:
        https://docs.jax.dev/en/latest/export/export.html
    """
    like = params_like(model, image_shape)
    params = flat(like)

    def encoder(params: FlatParams, x: Float[Array, "b *event"], label: Context = None) -> dict[str, Array]:
        return describe_posterior(model, {"params": nested_params(params, like)}, Batch(x, context=label))

    def decoder(params: FlatParams, z: Float[Array, "b d"], label: Context = None) -> Float[Array, "b *event"]:
        return decode_flat(model, {"params": nested_params(params, like)}, z, label).mean()

    (b,) = export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((b, *image_shape), jnp.float32)
    z = jax.ShapeDtypeStruct((b, num_latents(model)), jnp.float32)
    label = (jax.ShapeDtypeStruct((b,), jnp.int32),) if model.context_size else ()
    with _no_source_places():
        return {
            function.__name__: bytes(
                export.export(jax.jit(function), platforms=PLATFORMS)(params, of, *label).serialize()
            )
            for function, of in ((encoder, x), (decoder, z))
        }


@contextlib.contextmanager
def _no_source_places() -> Iterator[None]:
    """Keeps out of programs where on this machine the lines lie that they were made of."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)
