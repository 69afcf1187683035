"""The pictures of one run: computed in the page where its decoder is there, else beforehand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vae_jax.keys import Stream, stream_key
from vae_jax.models import Model, num_latents, sample_flat
from vae_jax.report.decoder import TOO_LARGE, decoded, live_decoder, obstacle
from vae_jax.report.latents import Axes, Encoded, axes
from vae_jax.report.payload import Sheet, packed
from vae_jax.trained import TrainedModel

SAMPLES = 48
_POOL = 480
_PAIRS = 24
_PICKED_LIVE, _PICKED = 40, 6
_PATH = 7
_STOPS = 9
_MANIFOLD_LIVE, _MANIFOLD = 20, 15
# Frames for each class would be too many where there are many.
_CLASSES = 10


class Pictures:
    """What a page shows of a model.

    Args:
        trained: The run.
        encoded: Images of a split; None without images.

    Attributes:
        decoder: For the page, if it can have it.
        why_no_decoder: Why it can't, as the beginning of a sentence; nothing where it can.
        axes: What there is to move along.
    """

    def __init__(self, trained: TrainedModel, encoded: Encoded | None) -> None:
        self._trained, self._model, self._encoded = trained, trained.model, encoded
        # Classes or contexts of the images, if the model is told them.
        self._told = encoded.split.given if encoded is not None and trained.model.context_size else None
        self.axes: Axes = axes(trained, encoded)
        self.decoder = None
        if trained.context_names:
            self.why_no_decoder = "The decoder is told numbers, which a page has no place to set"
            return
        z = self._trial()
        self.decoder = live_decoder(trained.model, trained.variables, z, classes_in_turn(trained.model, len(z)))
        self.why_no_decoder = "" if self.decoder else obstacle(trained.model) or TOO_LARGE

    def all(self) -> dict[str, Any]:
        """Everything for the page's scripts; parts that this model hasn't are left out."""
        model, encoded = self._model, self._encoded
        parts = {"decoder": self.decoder, "axes": self._axes(), "classes": self._classes}
        if self.decoder is None:
            parts["traversals"] = self._traversals()
        if "density" in model.traits:
            parts["samples"] = self._samples()
        if encoded is not None:
            parts["originals"] = Sheet(encoded.split.some(slice(_PAIRS)).pixels)
            parts["reconstructions"] = self._frames(encoded.means[:_PAIRS], _some(self._told, _PAIRS))
            if len(encoded.means) > 1:
                parts["interpolation"] = self._interpolation(encoded)
        if model.num_decoded == 2 and "standard_normal" in model.traits:
            parts["manifold"] = self._manifold()
        return parts

    @property
    def _classes(self) -> int:
        """How many classes there are to choose from in the page; 0 for a model that is told numbers."""
        if self._trained.context_names:
            return 0
        return self._model.context_size if self.decoder is not None else min(self._model.context_size, _CLASSES)

    def _middle(self, count: int) -> np.ndarray:
        """So many latents in the middle of all axes."""
        z = np.zeros((count, num_latents(self._model)), np.float32)
        z[:, : len(self.axes.centre)] = self.axes.centre
        return z

    def _trial(self) -> np.ndarray:
        """Latents at which the page is to be right: from the prior, of images, and far out along each axis."""
        order, reach = self.axes.order, self.axes.reach
        far = self._middle(2 * len(order))
        for index, dimension in enumerate(order):
            far[2 * index : 2 * index + 2, dimension] += (-reach[dimension], reach[dimension])
        parts = [far]
        if "density" in self._model.traits:
            parts.append(prior_latents(self._trained, _POOL, classes_in_turn(self._model, _POOL)))
        if self._encoded is not None:
            parts.append(self._encoded.means[:_POOL])
        return np.concatenate(parts)

    def _frames(self, z: Float[np.ndarray, "n d"], labels: np.ndarray | None) -> dict[str, Any]:
        """Images of latents: the latents alone where the page can decode them."""
        if self.decoder is None:
            return {"sheet": Sheet(decoded(self._model, self._trained.variables, z, labels))}
        seen = z[:, : self._model.num_decoded].astype(np.float32)
        return {"latents": packed(seen), "labels": None if labels is None else labels.tolist()}

    def _for_each_class(self, z: np.ndarray) -> dict[str, Any]:
        """Frames of the same latents, for one class after the other; for the mean context of a model with numbers."""
        if self._trained.context_names:
            return self._frames(z, np.tile(contexts_of(self._trained, self._encoded).mean(axis=0), (len(z), 1)))
        if not self._model.context_size:
            return self._frames(z, None)
        return self._frames(np.tile(z, (self._classes, 1)), np.repeat(np.arange(self._classes), len(z)))

    def _axes(self) -> dict[str, Any]:
        encoded = self._encoded
        return {
            "order": self.axes.order.tolist(),
            "numActive": self.axes.num_active,
            "centre": self.axes.centre.tolist(),
            "reach": self.axes.reach.tolist(),
            "kl": None if encoded is None or encoded.kl is None else encoded.kl.tolist(),
            "stops": _STOPS,
        }

    def _samples(self) -> dict[str, Any]:
        count = _POOL if self.decoder is not None else SAMPLES
        told = told_in_turn(self._trained, self._encoded, count)
        return {"shown": SAMPLES, **self._frames(prior_latents(self._trained, count, told), told)}

    def _interpolation(self, encoded: Encoded) -> dict[str, Any]:
        """Images to pick from, and the way from each to each other; the class is that of the nearer end."""
        count = min(len(encoded.means), _PICKED if self.decoder is None else _PICKED_LIVE)
        split, means, told = encoded.split.some(slice(count)), encoded.means[:count], _some(self._told, count)
        shown = None if split.labels is None else split.labels.tolist()
        found = {"images": Sheet(split.pixels), "labels": shown, "length": _PATH}
        if self.decoder is not None:
            return found | self._frames(means, told)
        share = np.linspace(0.0, 1.0, _PATH, dtype=np.float32)[:, None]

        def paths(ends: np.ndarray) -> np.ndarray:
            return np.concatenate([(1.0 - share) * first + share * last for first in ends for last in ends])

        if told is not None and self._trained.context_names:
            told = paths(told)
        elif told is not None:
            near = np.arange(_PATH) < _PATH / 2
            told = np.concatenate([np.where(near, first, last) for first in told for last in told])
        return found | self._frames(paths(means), told)

    def _traversals(self) -> dict[str, Any]:
        """For each class and each active dimension its stops, all other dimensions in the middle."""
        active = self.axes.order[: self.axes.num_active]
        z = self._middle(1 + len(active) * _STOPS)
        for index, dimension in enumerate(active):
            stops = np.linspace(-1.0, 1.0, _STOPS) * self.axes.reach[dimension]
            z[1 + index * _STOPS : 1 + (index + 1) * _STOPS, dimension] += stops
        return self._for_each_class(z)

    def _manifold(self) -> dict[str, Any]:
        side = _MANIFOLD if self.decoder is None else _MANIFOLD_LIVE
        return {"side": side, **self._for_each_class(manifold_latents(side))}


def prior_latents(trained: TrainedModel, count: int, told: np.ndarray | None = None) -> Float[np.ndarray, "n d"]:
    """Latents from p(z), always the same; of a standard normal prior they agree in as many dimensions as both have."""
    if "standard_normal" in trained.model.traits:
        columns = np.random.default_rng(0).standard_normal((num_latents(trained.model), count))
        return columns.T.astype(np.float32)
    key = stream_key(jax.random.key(0), Stream.SAMPLES)
    context = None if told is None else jnp.asarray(told)
    return np.asarray(sample_flat(trained.model, trained.variables, key, count, context))


def manifold_latents(side: int) -> Float[np.ndarray, "n 2"]:
    """The quantiles of a standard normal in both dimensions, the second from its largest down.

    Source:
        Kingma & Welling 2014, figure 4.
    """
    quantiles = jax.scipy.special.ndtri((jnp.arange(side) + 0.5) / side)
    across, up = jnp.meshgrid(quantiles, quantiles[::-1])
    return np.stack([across.ravel(), up.ravel()], axis=-1).astype(np.float32)


def _some(told: np.ndarray | None, count: int) -> np.ndarray | None:
    return None if told is None else told[:count]


def classes_in_turn(model: Model, count: int) -> np.ndarray | None:
    """One class after the other; None for a model without classes."""
    return np.arange(count) % model.context_size if model.context_size else None


def contexts_of(trained: TrainedModel, encoded: Encoded | None) -> Float[np.ndarray, "n context"]:
    """The numbers that a model is told of the images; zeros without images."""
    context = None if encoded is None else encoded.split.context
    return np.zeros((1, trained.model.context_size), np.float32) if context is None else context


def told_in_turn(trained: TrainedModel, encoded: Encoded | None, count: int) -> np.ndarray | None:
    """One class after the other, or the contexts of the first images; None for a model that is told nothing."""
    if not trained.context_names:
        return classes_in_turn(trained.model, count)
    contexts = contexts_of(trained, encoded)
    return contexts[np.arange(count) % len(contexts)]


def comparison_sheet(trained: TrainedModel, encoded: Encoded | None) -> Sheet | None:
    """Means of p(x|z) at the same latents for each model; None for a model without a prior to draw from."""
    if "density" not in trained.model.traits:
        return None
    told = told_in_turn(trained, encoded, SAMPLES)
    return Sheet(decoded(trained.model, trained.variables, prior_latents(trained, SAMPLES, told), told))
