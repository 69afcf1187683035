"""Which latent dimensions matter, where they live, and the images of a split among them."""

import dataclasses
from typing import Any

import jax
import numpy as np
import sklearn.decomposition
from jaxtyping import Float, Int

from vae_jax.data import Split
from vae_jax.evaluation import active_units, make_latent_terms, map_images
from vae_jax.keys import Stream, stream_key
from vae_jax.sharding import own_device
from vae_jax.trained import TrainedModel

# Points beyond this many make a browser slow, and no picture clearer.
MOST_IMAGES = 3000
_IMAGES_AT_ONCE = 500
_REACH = 3.0


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Images and their posteriors.

    Attributes:
        split: The images, as the model sees them.
        means: Of q(z|x).
        kl: KL(q(z|x) || p(z)) of each dimension in nats, mean over the images; None where it is no sum over dimensions.
    """

    split: Split
    means: Float[np.ndarray, "n d"]
    kl: Float[np.ndarray, "d"] | None


@dataclasses.dataclass(frozen=True)
class Axes:
    """The dimensions of z that the decoder sees.

    Attributes:
        order: All of them; the active first, then by falling KL (or variance of the posterior mean).
        num_active: How many of `order`, from its start, tell images apart.
        centre: Where each is in the middle, by dimension.
        reach: How far from there to go, by dimension.
    """

    order: Int[np.ndarray, "d"]
    num_active: int
    centre: Float[np.ndarray, "d"]
    reach: Float[np.ndarray, "d"]


def encode(trained: TrainedModel, split: Split) -> Encoded:
    """Encodes the first images of a split, on one device of this process alone.

    Other processes of a run needn't take part.
    """
    count = min(MOST_IMAGES, len(split.images))
    split = split.some(slice(count))
    latent_terms = make_latent_terms(trained.model)
    key = stream_key(jax.random.key(trained.config.data.seed), Stream.EVALUATION)

    def of_batch(batch, ids):
        terms = latent_terms(trained.variables, batch, ids, key)
        return {"mean": terms.mean, "kl": terms.kl_per_dimension}

    at_once, given = min(_IMAGES_AT_ONCE, count), split.given if trained.model.context_size else None
    found = map_images(of_batch, split.images, split.max_value, at_once, own_device(), given)
    kl = None if found["kl"] is None else found["kl"].mean(axis=0, dtype=np.float64)
    return Encoded(split, found["mean"], kl)


def axes(trained: TrainedModel, encoded: Encoded | None) -> Axes:
    """What there is to move along: three standard deviations of a normal prior, or else of the posterior means."""
    size = trained.model.num_decoded
    centre, reach = np.zeros(size, np.float32), np.full(size, _REACH, np.float32)
    if encoded is None:
        return Axes(np.arange(size), size, centre, reach)
    means = encoded.means[:, :size]
    if not ("standard_normal" in trained.model.traits and "density" in trained.model.traits):
        centre, reach = means.mean(axis=0), np.maximum(_REACH * means.std(axis=0), 1e-3)
    weight = np.var(means, axis=0) if encoded.kl is None else encoded.kl[:size]
    # One image alone doesn't tell which dimensions tell images apart.
    active = np.isin(np.arange(size), active_units(means)) | (len(means) < 2)
    order = np.lexsort((-weight, ~active))
    return Axes(order, int(active.sum()), centre, reach)


def projection(means: Float[np.ndarray, "n d"]) -> dict[str, Any]:
    """Posterior means in two dimensions: as they are, or on their first two principal components.

    Returns:
        `x` and `y`, lists of N; and `shares`, how much of the variance each has, None where nothing was projected.
    """
    count, size = means.shape
    if size > 2 and count > 2:
        components = sklearn.decomposition.PCA(2, random_state=0)
        plane = components.fit_transform(means.astype(np.float64))
        shares = [float(share) for share in np.nan_to_num(components.explained_variance_ratio_)]
    else:
        plane = np.concatenate([means, np.zeros_like(means)], axis=1)[:, :2] if size < 2 else means[:, :2]
        shares = None
    x, y = np.round(plane, 4).T.tolist()
    return {"x": x, "y": y, "shares": shares}
