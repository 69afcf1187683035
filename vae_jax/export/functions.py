"""Encoder and decoder as programs: StableHLO for any batch size, on CPU, CUDA and TPU."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float

from vae_jax.models import Batch, Context, Model, Variables, decode_flat, init_variables, num_latents
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


def with_state(variables: Variables) -> Any:
    """The parameters, and beside them as `state` what of the variables changes without gradients, if anything does."""
    return {**variables["params"], **{name: tree for name, tree in variables.items() if name != "params"}}


def variables_like(model: Model, image_shape: tuple[int, ...]) -> Variables:
    """Shape and type of each variable of a model; nothing is computed."""
    return jax.eval_shape(lambda: init_variables(model, jax.random.key(0), image_shape))


def nested_variables(named: FlatParams, like: Variables) -> Variables:
    """Variables as the model has them.

    Args:
        named: From `flat_params` of `with_state`.
        like: From `variables_like`.
    """
    tree = with_state(like)
    tree = jax.tree.unflatten(jax.tree.structure(tree), [named[name] for name in flat(tree)])
    return {"params": tree} if "state" not in like else {"state": tree.pop("state"), "params": tree}


def serialized_functions(model: Model, image_shape: tuple[int, ...], has_context: bool = False) -> dict[str, bytes]:
    """The two functions of a model, as `jax.export.deserialize` takes them.

    Args:
        model: The model.
        image_shape: Height, width, channels.
        has_context: Whether the label of an image is a row of numbers.

    Returns:
        `encoder`, `(params, x[, label]) -> describe_posterior(...)`, and `decoder`, `(params, z[, label]) -> ` mean of
        p(x|z). `params` are the flat ones of the whole model, from `with_state`; labels are there where the model is
        conditional.

    Source:
        https://docs.jax.dev/en/latest/export/export.html
    """
    like = variables_like(model, image_shape)
    params = flat(with_state(like))

    def encoder(params: FlatParams, x: Float[Array, "b *event"], label: Context = None) -> dict[str, Array]:
        return describe_posterior(model, nested_variables(params, like), Batch(x, context=label))

    def decoder(params: FlatParams, z: Float[Array, "b d"], label: Context = None) -> Float[Array, "b *event"]:
        return decode_flat(model, nested_variables(params, like), z, label).mean()

    (b,) = export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((b, *image_shape), jnp.float32)
    z = jax.ShapeDtypeStruct((b, num_latents(model)), jnp.float32)
    told = ((b, model.context_size), jnp.float32) if has_context else ((b,), jnp.int32)
    label = (jax.ShapeDtypeStruct(*told),) if model.context_size else ()
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
