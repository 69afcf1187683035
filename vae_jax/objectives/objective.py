"""The protocol of objectives."""

from typing import Protocol, runtime_checkable

from vae_jax.objectives.terms import ElboTerms
from vae_jax.shapes import Count, ImageBatch, RandomKey, Scalar
from vae_jax.vae import VAE, Label, Params


@runtime_checkable
class Objective(Protocol):
    """A loss whose gradient trains a model, and the terms of the ELBO that are reported beside it.

    An objective that is a mean over images also declares `over_images = True`: only then may a batch be processed in
    parts whose gradients are averaged.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """What the posterior must declare; see `vae_jax.posteriors`."""
        ...

    def __call__(
        self, model: VAE, params: Params, x: ImageBatch, key: RandomKey, step: Count, label: Label = None
    ) -> tuple[Scalar, ElboTerms]:
        """Loss to minimize, and the terms of each image.

        Args:
            model: The model.
            params: Its parameters.
            x: Images, scaled as the likelihood expects.
            key: For the noise of z.
            step: Steps taken so far, for annealing.
            label: Classes of the images, for a conditional model.

        Returns:
            The loss of the whole batch, and the terms per image in nats.
        """
        ...
