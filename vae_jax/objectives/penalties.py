"""The bound with a penalty in place of its KL divergence: beta-VAE, free bits and capacity."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.objectives.elbo import Elbo
from vae_jax.settings import setting
from vae_jax.shapes import Count, Scalar

ANNEALINGS = ("none", "linear", "cyclical")


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
class Beta(Elbo):
    """`-reconstruction + beta(step) KL`.

    Attributes:
        beta: Weight at the end of the annealing; 1 for the bound itself.
        annealing: `none`, `linear` or `cyclical`.
        steps: Length of the rise, or of a cycle.

    Source:
        Higgins et al. 2017 (beta-VAE); Bowman et al., arXiv 1511.06349 (annealing).
    """

    beta: float = setting(1.0, "weight of the KL", minimum=0.0)
    annealing: str = setting("none", "how the weight rises", choices=ANNEALINGS)
    steps: int = setting(0, "of the rise, or of a cycle", minimum=0)

    def penalty(self, kl: Float[Array, "b g"], step: Count) -> Scalar:
        """Nats, averaged over the batch."""
        cost = self.beta * jnp.mean(jnp.sum(kl, axis=-1))
        if self.annealing == "none":
            return cost
        ramp = cyclical_ramp if self.annealing == "cyclical" else linear_ramp
        return ramp(step, self.steps) * cost


@dataclasses.dataclass(frozen=True)
class FreeBits(Elbo):
    """`-reconstruction + sum_g max(nats, mean_b KL_g)`: reducing a group below its free nats gains nothing.

    Attributes:
        nats: That are free in each latent dimension.
        num_latents: Dimensions. A divergence that isn't a sum over them has one group with `num_latents * nats`.

    Source:
        Kingma et al., arXiv 1606.04934, appendix C.8.
    """

    num_latents: int = dataclasses.field(kw_only=True)
    nats: float = setting(0.5, "free in each latent dimension", minimum=0.0)

    over_images = False

    def penalty(self, kl: Float[Array, "b g"], step: Count) -> Scalar:
        """Nats, averaged over the batch."""
        free = self.nats * self.num_latents / kl.shape[-1]
        return jnp.sum(jnp.maximum(free, jnp.mean(kl, axis=0)))


@dataclasses.dataclass(frozen=True)
class Capacity(Elbo):
    """`-reconstruction + gamma |mean_b KL - C(step)|` with C rising linearly.

    Attributes:
        weight: gamma.
        nats: C at the end.
        steps: Over which it rises from 0.

    Source:
        Burgess et al., arXiv 1804.03599, eq. 8.
    """

    nats: float = setting(25.0, "target of the KL", minimum=0.0)
    weight: float = setting(10.0, "of the distance to it", minimum=0.0)
    steps: int = setting(0, "over which the target rises from 0", minimum=0)

    over_images = False

    def penalty(self, kl: Float[Array, "b g"], step: Count) -> Scalar:
        """Nats, averaged over the batch."""
        target = self.nats * linear_ramp(step, self.steps)
        return self.weight * jnp.abs(jnp.mean(jnp.sum(kl, axis=-1)) - target)
