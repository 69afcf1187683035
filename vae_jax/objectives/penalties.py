"""Penalties in place of the KL divergence: beta-VAE, free bits and capacity.

A penalty is a function `(kl [B, groups], step) -> nats`, averaged over the batch. The groups are the latent dimensions
if the divergence is a sum over them; otherwise there is one group. A penalty that is a mean over images declares
`over_images`; see `Objective`.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.shapes import Count, Scalar

ANNEALINGS = ("none", "linear", "cyclical")
Penalty = Callable[[Float[Array, "b g"], Count], Scalar]


def linear_ramp(step: Count, num_steps: int) -> Scalar:
    """Rises from 0 to 1 over `num_steps` and stays there; always 1 if `num_steps` is 0."""
    return jnp.minimum(1.0, step / num_steps) if num_steps > 0 else jnp.ones(())


def cyclical_ramp(step: Count, num_steps: int, rising_share: float = 0.5) -> Scalar:
    """Rises from 0 to 1 over the first part of each cycle of `num_steps`, then stays at 1 until its end.

    Source:
        Fu et al., arXiv 1903.10145, with the length of a cycle instead of the number of cycles.
    """
    return jnp.minimum(1.0, jnp.mod(step, num_steps) / (rising_share * num_steps))


@dataclasses.dataclass(frozen=True)
class Weighted:
    """`beta(step) KL`.

    Attributes:
        beta: Weight at the end of the annealing; 1 for the bound itself.
        annealing: `none`, `linear` or `cyclical`.
        annealing_steps: Length of the rise, or of a cycle.

    Source:
        Higgins et al. 2017 (beta-VAE); Bowman et al., arXiv 1511.06349 (annealing).
    """

    beta: float = 1.0
    annealing: str = "none"
    annealing_steps: int = 0

    over_images = True

    def __call__(self, kl: Float[Array, "b g"], step: Count) -> Scalar:
        """Nats, averaged over the batch."""
        cost = self.beta * jnp.mean(jnp.sum(kl, axis=-1))
        if self.annealing == "none":
            return cost
        ramp = cyclical_ramp if self.annealing == "cyclical" else linear_ramp
        return ramp(step, self.annealing_steps) * cost


@dataclasses.dataclass(frozen=True)
class FreeBits:
    """`sum_g max(free_nats, mean_b KL_g)`: reducing a group below its free nats gains nothing.

    Attributes:
        free_nats: Per latent dimension.
        latents: Latent dimensions. A divergence that isn't a sum over them has one group with
            `latents * free_nats`.

    Source:
        Kingma et al., arXiv 1606.04934, appendix C.8.
    """

    free_nats: float
    latents: int

    def __call__(self, kl: Float[Array, "b g"], step: Count) -> Scalar:
        """Nats, averaged over the batch."""
        free = self.free_nats * self.latents / kl.shape[-1]
        return jnp.sum(jnp.maximum(free, jnp.mean(kl, axis=0)))


@dataclasses.dataclass(frozen=True)
class Capacity:
    """`gamma |mean_b KL - C(step)|` with C rising linearly.

    Attributes:
        gamma: Weight.
        capacity: C at the end, in nats.
        steps: Over which it rises from 0.

    Source:
        Burgess et al., arXiv 1804.03599, eq. 8.
    """

    gamma: float
    capacity: float
    steps: int

    def __call__(self, kl: Float[Array, "b g"], step: Count) -> Scalar:
        """Nats, averaged over the batch."""
        target = self.capacity * linear_ramp(step, self.steps)
        return self.gamma * jnp.abs(jnp.mean(jnp.sum(kl, axis=-1)) - target)
