"""Custom parts (`package.module:Name`) are tried on shapes alone, so that mistakes show before anything is trained."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.build.registry import call_custom, is_custom
from vae_jax.config import ModelConfig
from vae_jax.errors import UserError
from vae_jax.objectives import ElboTerms
from vae_jax.printable import one_line
from vae_jax.vae import VAE, init_params

ImageShape = tuple[int, int, int]

# Different numbers, so that no axis is taken for another.
_SAMPLES, _IMAGES = 3, 2


def check_pair(name: str, made: Any) -> tuple[nn.Module, nn.Module]:
    """The encoder and the decoder that a network consists of.

    Raises:
        UserError: If it is something else.
    """
    if isinstance(made, tuple | list) and len(made) == 2 and all(isinstance(each, nn.Module) for each in made):
        return made[0], made[1]
    raise UserError(
        f"'model.network' {name!r} gives {_described(made)}; a pair of Flax modules is needed, (encoder, decoder)"
    )


def check_custom_parts(model: VAE, config: ModelConfig, image_shape: ImageShape, outputs: ImageShape) -> None:
    """Traces what training and evaluation call, for a model with custom parts.

    Args:
        model: The model.
        config: What it was made of.
        image_shape: Height, width, channels.
        outputs: What the decoder has to return for each image.

    Raises:
        UserError: If a part raises anything, or returns something else than is needed.
    """
    fields = ("network", "activation", "posterior", "prior", "likelihood")
    custom = [f"model.{field} {getattr(config, field)!r}" for field in fields if is_custom(getattr(config, field))]
    if not custom:
        return
    shown, latents = " with ".join(custom), model.prior.latents
    pairs, images = (_SAMPLES, _IMAGES), (_IMAGES, *image_shape)

    def expect(what: str, value: Any, shape: tuple[int, ...]) -> None:
        if not _is_float(value) or value.shape != shape:
            raise UserError(f"{shown}: {what} is {_described(value)}, but floats of shape {shape} are needed")

    def use(module: VAE, key: jax.Array) -> None:
        x = jnp.zeros(images)
        label = jnp.zeros(_IMAGES, jnp.int32) if module.num_classes else None
        q = module.encode(x, label)
        expect("the mean of q(z|x)", module.posterior.mean(q), (_IMAGES, latents))
        z, log_posterior = module.transform(q, jnp.zeros((*pairs, module.noise_size)))
        expect("z", z, (*pairs, latents))
        if module.posterior.has_density:
            expect("log q(z|x)", log_posterior, pairs)
        decoded = module.decode(z, label)
        expect("what the decoder returns", decoded, (*pairs, *outputs))
        expect("log p(x|z)", module.likelihood.log_prob(decoded, x), pairs)
        expect("the mean of p(x|z)", module.likelihood.mean(decoded), (*pairs, *image_shape))
        expect("a sample of p(x|z)", module.likelihood.sample(decoded, key), (*pairs, *image_shape))
        expect("log p(z)", module.log_prior(z), pairs)
        expect("a sample of p(z)", module.sample_prior(key, _IMAGES), (_IMAGES, latents))

    def on_shapes(key: jax.Array) -> Any:
        return model.init_with_output(key, key, method=use)[1]

    call_custom(shown, "tried on shapes", jax.eval_shape, on_shapes, jax.random.key(0))


def check_custom_objective(objective: Any, name: str, model: VAE, image_shape: ImageShape) -> None:
    """Traces the loss of a custom objective.

    Args:
        objective: What the config's name made.
        name: That name.
        model: The model.
        image_shape: Height, width, channels.

    Raises:
        UserError: If it raises anything, or returns something else than is needed.
    """
    shown = f"objective.name {name!r}"
    if not callable(objective) or not hasattr(objective, "needs"):
        raise UserError(
            f"{shown} gives {_described(objective)}; a function of (model, params, x, key, step, label) is needed, "
            "with an attribute needs: what the posterior must declare, () if nothing"
        )
    key = jax.random.key(0)
    params = jax.eval_shape(lambda: init_params(model, key, image_shape))
    label = jnp.zeros(_IMAGES, jnp.int32) if model.num_classes else None
    loss: Callable[..., Any] = lambda params, x, step: objective(model, params, x, key, step, label)  # noqa: E731
    arguments = params, jnp.zeros((_IMAGES, *image_shape)), jnp.zeros((), jnp.int32)
    found = call_custom(shown, "asked for its loss", jax.eval_shape, loss, *arguments)
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], ElboTerms):
        raise UserError(f"{shown} gives {_described(found)}; a pair is needed, the loss and ElboTerms")
    if not _is_float(found[0]) or found[0].shape != ():
        raise UserError(f"{shown}: the loss is {_described(found[0])}; one float for the whole batch is needed")


def _is_float(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)


def _described(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {one_line(repr(value), 60)}"
