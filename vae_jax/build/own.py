"""Parts of a user's own, tried on shapes alone: what they lack, or give wrongly, is said before anything is trained."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.build.registry import call_own, is_own
from vae_jax.config import ModelConfig
from vae_jax.errors import UserError
from vae_jax.objectives import ElboTerms
from vae_jax.printable import one_line
from vae_jax.vae import VAE, init_params

ImageShape = tuple[int, int, int]
Shape = tuple[int, ...]

# What each kind of part has to have; how it is called stands in the docstrings of the packages.
MEMBERS: Mapping[str, tuple[str, ...]] = {
    "likelihood": ("outputs_per_pixel", "base_measure", "support", "log_prob", "mean", "sample"),
    "posterior": (
        *("latents", "noise_size", "analytic_kl", "has_density", "log_prob_anywhere", "reparameterized"),
        *("transform", "mean"),
    ),
    "prior": ("latents", "num_decoded", "is_standard_normal", "needs_components", "log_prob", "sample"),
}
_PIXELS = ("binary", "levels", "continuous", "real")
# Different numbers, so that no axis is taken for another.
_SAMPLES, _IMAGES = 3, 2


def check_members(kind: str, name: str, part: Any) -> None:
    """Refuses a likelihood, posterior or prior that isn't one.

    Args:
        kind: Which of them it is to be.
        name: How the config calls it.
        part: What was made.

    Raises:
        UserError: If it is no Flax module, or lacks a member.
    """
    shown = f"'model.{kind}' {name!r}"
    if not isinstance(part, nn.Module):
        raise UserError(f"{shown} gives {_described(part)}; a Flax module is needed, an instance of it")
    lacking = [member for member in MEMBERS[kind] if not hasattr(part, member)]
    if lacking:
        raise UserError(
            f"{shown} gives a {type(part).__name__} without {', '.join(lacking)}; a {kind} needs "
            f"{', '.join(MEMBERS[kind])}"
        )
    if kind == "likelihood" and (
        isinstance(part.support, str) or not set(part.support) or set(part.support) - set(_PIXELS)
    ):
        raise UserError(f"{shown} has support = {part.support!r}; a set of some of {', '.join(_PIXELS)} is needed")


def outputs_per_pixel(name: str, likelihood: nn.Module, channels: int) -> int:
    """How many numbers for each pixel a likelihood wants of the decoder.

    Raises:
        UserError: If it says no such number.
    """
    asked: Any = getattr(likelihood, "outputs_per_pixel")  # noqa: B009 - a Linen module doesn't declare it
    part = f"'model.likelihood' {name!r}"
    count = call_own(part, "asked for outputs_per_pixel", asked, channels) if is_own(name) else asked(channels)
    if not isinstance(count, int | np.integer) or count < 1:
        raise UserError(f"{part} gives {_described(count)} as outputs_per_pixel; a whole number above 0 is needed")
    return int(count)


def check_pair(name: str, made: Any) -> tuple[nn.Module, nn.Module]:
    """What a network is made of, if it is a pair of modules.

    Raises:
        UserError: If it is something else.
    """
    if isinstance(made, tuple | list) and len(made) == 2 and all(isinstance(each, nn.Module) for each in made):
        return made[0], made[1]
    raise UserError(
        f"'model.network' {name!r} gives {_described(made)}; a pair of Flax modules is needed, (encoder, decoder)"
    )


def rehearse(model: VAE, config: ModelConfig, image_shape: ImageShape, outputs: ImageShape) -> None:
    """Asks each part of a model everything that training and evaluation will, where one of them is the user's own.

    Nothing is computed: JAX follows shapes alone.

    Args:
        model: The model.
        config: What it was made of.
        image_shape: Height, width, channels.
        outputs: What the decoder is to give of each image.

    Raises:
        UserError: If a part raises anything, or gives something else than is needed.
    """
    fields = ("network", "activation", "posterior", "prior", "likelihood")
    names = {field: getattr(config, field) for field in fields if is_own(getattr(config, field))}
    if not names:
        return
    if "activation" in names:
        names.setdefault("network", names["activation"])
    trial = _Trial(names, image_shape, outputs)

    def on_shapes(key: jax.Array) -> Any:
        return model.init_with_output(key, key, method=trial)[1]

    jax.eval_shape(on_shapes, jax.random.key(0))


class _Trial:
    """A method of the model that asks all of its parts, one after the other.

    Args:
        names: The user's own, by their field; the others aren't looked at so closely.
        image_shape: As in `rehearse`.
        outputs: As in `rehearse`.
    """

    def __init__(self, names: Mapping[str, str], image_shape: ImageShape, outputs: ImageShape) -> None:
        self._names, self._image_shape, self._outputs = names, image_shape, outputs

    def __call__(self, model: Any, key: jax.Array) -> None:
        x = jnp.zeros((_IMAGES, *self._image_shape))
        classes = {"context": jnp.zeros((_IMAGES, model.num_classes))} if model.num_classes else {}
        features = self._asked("network", "its encoder", model.encoder, x, **classes)
        self._check_features(features)
        z = self._of_posterior(model, features)
        self._of_prior(model, z, key)
        self._of_decoder(model)
        self._of_likelihood(model.likelihood, x, key)

    def _of_posterior(self, model: Any, features: Any) -> Any:
        posterior, latents = model.posterior, (_IMAGES, model.posterior.latents)
        parameters = self._asked("posterior", "parameters", posterior, features)
        self._array("posterior", "mean", latents, posterior.mean, parameters)
        noise = jnp.zeros((_SAMPLES, _IMAGES, posterior.noise_size))
        drawn = self._asked("posterior", "transform", posterior.transform, parameters, noise)
        if not isinstance(drawn, tuple) or len(drawn) != 2:
            raise self._wrong("posterior", "transform", drawn, "two, z and log q(z|x) (or None),", (_SAMPLES,))
        z, log_prob = drawn
        self._check("posterior", "z of transform", z, (_SAMPLES, *latents))
        if posterior.has_density:
            self._check("posterior", "log q(z|x) of transform", log_prob, (_SAMPLES, _IMAGES))
        if posterior.log_prob_anywhere:
            self._array("posterior", "log_prob", (_SAMPLES, _IMAGES), self._get(posterior, "log_prob"), parameters, z)
        if posterior.analytic_kl:
            kl = self._get(posterior, "kl_to_standard_normal")
            self._array("posterior", "kl_to_standard_normal", (_IMAGES,), kl, parameters)
        return z

    def _of_prior(self, model: Any, z: Any, key: jax.Array) -> None:
        # The model knows what a prior that is a mixture of posteriors takes besides.
        self._array("prior", "log_prob", (_SAMPLES, _IMAGES), model.log_prior, z)
        self._array("prior", "sample", (_IMAGES, model.prior.latents), model.sample_prior, key, _IMAGES)

    def _of_decoder(self, model: Any) -> None:
        z = jnp.zeros((_IMAGES, model.prior.num_decoded + model.num_classes))
        self._array("network", "its decoder", (_IMAGES, *self._outputs), model.decoder, z)

    def _of_likelihood(self, likelihood: Any, x: jax.Array, key: jax.Array) -> None:
        outputs = jnp.zeros((_IMAGES, *self._outputs))
        many = jnp.zeros((_SAMPLES, _IMAGES, *self._outputs))
        self._array("likelihood", "log_prob", (_SAMPLES, _IMAGES), likelihood.log_prob, many, x)
        self._array("likelihood", "mean", x.shape, likelihood.mean, outputs)
        self._array("likelihood", "sample", x.shape, likelihood.sample, outputs, key)

    def _array(self, field: str, what: str, shape: Shape, function: Callable[..., Any], *arguments: Any) -> None:
        self._check(field, what, self._asked(field, what, function, *arguments), shape)

    def _asked(self, field: str, what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What a part gives; one of the user's own can raise anything."""
        if field not in self._names:
            return function(*arguments, **named)
        return call_own(self._part(field), f"asked for {what}", lambda: function(*arguments, **named))

    def _get(self, part: Any, member: str) -> Any:
        """A member that a posterior needs for what it declares."""
        if not hasattr(part, member):
            name = self._part("posterior")
            raise UserError(f"{name} has no {member}, which what it declares asks for; see vae_jax.posteriors")
        return getattr(part, member)

    def _check_features(self, features: Any) -> None:
        if not _is_float(features) or features.ndim != 2 or features.shape[0] != _IMAGES:
            raise self._wrong(
                "network", "its encoder", features, f"floats of shape ({_IMAGES}, F), features of each image,"
            )

    def _check(self, field: str, what: str, value: Any, shape: Shape) -> None:
        if not _is_float(value) or value.shape != shape:
            raise self._wrong(field, what, value, f"floats of shape {shape}", shape)

    def _wrong(self, field: str, what: str, value: Any, needed: str, shape: Shape = ()) -> UserError:
        asked = f"for {_SAMPLES} samples of z of {_IMAGES} images" if _SAMPLES in shape else f"for {_IMAGES} images"
        return UserError(f"{self._part(field)}: {asked} {what} gives {_described(value)}, but {needed} are needed")

    def _part(self, field: str) -> str:
        return f"'model.{field}' {self._names.get(field, '')!r}"


def rehearse_objective(objective: Any, name: str, model: VAE, image_shape: ImageShape) -> None:
    """Asks an objective of the user's own for its loss, on shapes alone.

    Args:
        objective: What the config's name made.
        name: That name.
        model: The model.
        image_shape: Height, width, channels.

    Raises:
        UserError: If it raises anything, or is or gives something else than is needed.
    """
    part = f"'objective.name' {name!r}"
    if not callable(objective):
        raise UserError(
            f"{part} gives {_described(objective)}; a function of (model, params, x, key, step, label) is needed"
        )
    if not hasattr(objective, "needs"):
        raise UserError(f"{part} has no needs: what a posterior must declare for it; () where that is nothing")
    key = jax.random.key(0)
    params = jax.eval_shape(lambda: init_params(model, key, image_shape))
    label = jnp.zeros(_IMAGES, jnp.int32) if model.num_classes else None
    made = []

    def on_shapes(params: Any, x: jax.Array, step: jax.Array) -> None:
        made.append(call_own(part, "asked for its loss", objective, model, params, x, key, step, label))

    jax.eval_shape(on_shapes, params, jnp.zeros((_IMAGES, *image_shape)), jnp.zeros((), jnp.int32))
    (found,) = made
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], ElboTerms):
        raise UserError(f"{part} gives {_described(found)}; a pair is needed, the loss and ElboTerms")
    if not _is_float(found[0]) or found[0].shape != ():
        raise UserError(f"{part}: the loss is {_described(found[0])}; one float for the whole batch is needed")


def _is_float(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating)


def _described(value: Any) -> str:
    """What a part gave, for people."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {one_line(repr(value), 60)}"
