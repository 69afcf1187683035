"""What every objective is."""

from typing import Protocol

from jaxtyping import Array, Float, Int, Key

from vae_jax.objectives.terms import ElboTerms
from vae_jax.vae import VAE, Label, Params


class Objective(Protocol):
    """A function that is differentiated and minimized; most are frozen dataclasses of their settings.

    Where the surrogate is a mean over images, the class declares `over_images = True`: a batch may be divided then.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """What the posterior must declare for the objective to make sense."""
        ...

    def __call__(
        self,
        model: VAE,
        params: Params,
        x: Float[Array, "b h w c"],
        key: Key[Array, ""],
        step: Int[Array, ""],
        label: Label = None,
    ) -> tuple[Float[Array, ""], ElboTerms]:
        """The surrogate to minimize, and what is reported whatever is optimized.

        Args:
            model: The model.
            params: Its parameters.
            x: Images, as the likelihood wants them.
            key: Consumed for all noise.
            step: Steps taken, for annealing.
            label: Classes of the images, for a conditional model.

        Returns:
            A scalar over the whole batch, and the terms of the ELBO of each image, in nats.
        """
        ...
