"""What all posteriors declare, with what is usual."""

import math
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float


class Posterior(nn.Module):
    """A posterior with a density, whose samples are differentiable; `vae_jax.posteriors` says what these mean."""

    analytic_kl = False
    has_density = True
    log_prob_anywhere = False
    reparameterized = True
    factorized = False
    deterministic = False
    diagonal_gaussian = False
    takes_maps = False

    @property
    def shape(self) -> Any:
        """Shape of one z: `(D,)`, or `(h, w, c)` for a map."""
        return (self.latents,) if isinstance(self.latents, int) else self.latents

    @property
    def noise_size(self) -> int:
        """One number for each dimension."""
        return math.prod(self.shape)

    def kl_groups(self, parameters: Any) -> Float[Array, "b g"]:
        """KL to a standard normal in nats, by groups that it is a sum over: one."""
        return self.kl_to_standard_normal(parameters)[:, None]
