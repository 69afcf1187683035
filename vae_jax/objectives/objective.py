"""The protocol of objectives."""

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import optax

from vae_jax.models import Batch, Model, Variables
from vae_jax.objectives.terms import ElboTerms
from vae_jax.shapes import Count, RandomKey, Scalar

MODEL = "model"
"""The player that owns all parameters of the model."""


class Loss(NamedTuple):
    """What an objective says of a batch.

    Attributes:
        players: What each player minimizes. Their sum is differentiated once, so a loss must not depend on another
            player's parameters but through `jax.lax.stop_gradient`.
        terms: Those of the ELBO for each example, in nats.
        state: Numbers of the model that change without gradients, after this batch.
        metrics: Further numbers for the rows of metrics.
    """

    players: Mapping[str, Scalar]
    terms: ElboTerms
    state: Any = None
    metrics: Mapping[str, Scalar] = types.MappingProxyType({})


class Player(NamedTuple):
    """Another player beside the model, with parameters of its own in `variables["params"]["players"][name]`.

    An objective with such players has a method `players(model)` that gives them by name. All of them take a step
    together with the model, in one compiled function.

    Attributes:
        init: From a key to fresh parameters.
        optimizer: Of these parameters.
    """

    init: Callable[[RandomKey], Any]
    optimizer: optax.GradientTransformation


@runtime_checkable
class Objective(Protocol):
    """A loss whose gradient trains a model, and the terms of the ELBO that are reported beside it.

    An objective that is a mean over examples also declares `over_images = True`: only then may a batch be processed in
    parts whose gradients are averaged.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Traits that the model must have; see `vae_jax.models.Model`."""
        ...

    def __call__(self, model: Model, variables: Variables, batch: Batch, key: RandomKey, step: Count) -> Loss:
        """What to minimize, and the terms of each example.

        Args:
            model: The model.
            variables: Its variables.
            batch: Examples, scaled as the likelihood expects.
            key: For the noise of z.
            step: Steps taken so far, for annealing.
        """
        ...
