"""Planar flows on a diagonal Gaussian."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.flows import GaussianParameters, planar
from vae_jax.posteriors.diagonal_gaussian import DiagonalGaussian


class PlanarParameters(NamedTuple):
    """What the encoder says of each image: where the flows start, and their F directions, normals and offsets."""

    base: GaussianParameters
    u: Float[Array, "f b d"]
    w: Float[Array, "f b d"]
    b: Float[Array, "f b"]


class PlanarFlow(nn.Module):
    """A diagonal Gaussian through planar flows whose every number is linear in the features.

    The directions u start at 0: a fresh posterior is the diagonal Gaussian. A planar flow can be inverted,
    but not in closed form, so log q is known only for the z that were drawn.

    Attributes:
        latents: Components of z.
        flows: How many flows.

    Source:
        Rezende & Mohamed, arXiv 1505.05770, eq. 13 and algorithm 1.
    """

    latents: int
    flows: int = 10

    analytic_kl = False
    has_density = True
    log_prob_anywhere = False
    reparameterized = True

    @property
    def noise_size(self) -> int:
        """One number per component."""
        return self.latents

    def setup(self) -> None:
        self.base = DiagonalGaussian(self.latents)
        self.u = nn.Dense(self.flows * self.latents, kernel_init=nn.initializers.zeros)
        self.w = nn.Dense(self.flows * self.latents)
        self.b = nn.Dense(self.flows)

    def __call__(self, features: Float[Array, "b f"]) -> PlanarParameters:
        """Parameters of the base and of each flow for each image."""
        u, w = (head(features).reshape(-1, self.flows, self.latents).swapaxes(0, 1) for head in (self.u, self.w))
        return PlanarParameters(self.base(features), u, w, self.b(features).T)

    def transform(
        self, parameters: PlanarParameters, noise: Float[Array, "k b d"]
    ) -> tuple[Float[Array, "k b d"], Float[Array, "k b"]]:
        """z, and `log q(z|x) = log q_0(z_0) - sum_f log |det df_f/dz|` in nats."""
        z, log_prob = self.base.transform(parameters.base, noise)
        for u, w, b in zip(parameters.u, parameters.w, parameters.b, strict=True):
            z, log_det = planar(z, u, w, b)
            log_prob = log_prob - log_det
        return z, log_prob

    def mean(self, parameters: PlanarParameters) -> Float[Array, "b d"]:
        """Where the flows take the mean of the base; the mean of q(z|x) itself has no closed form."""
        noise = jnp.zeros((1, *parameters.base.mean.shape), parameters.base.mean.dtype)
        return self.transform(parameters, noise)[0][0]
