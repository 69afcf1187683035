"""Planar flows on a diagonal Gaussian."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.flows import GaussianParameters, planar
from vae_jax.posteriors.diagonal_gaussian import DiagonalGaussian
from vae_jax.posteriors.posterior import Posterior
from vae_jax.settings import setting
from vae_jax.shapes import Means, PerSample, Samples


class PlanarParameters(NamedTuple):
    """For each image: the Gaussian before the flows, and directions, normals and offsets of F flows."""

    base: GaussianParameters
    u: Float[Array, "f b d"]
    w: Float[Array, "f b d"]
    b: Float[Array, "f b"]


class PlanarFlow(Posterior):
    """A diagonal Gaussian transformed by planar flows whose parameters are linear in the features.

    The directions u start at 0, so a new posterior is the diagonal Gaussian. The inverse of a planar flow has no closed
    form, so log q is available only for its samples.

    Attributes:
        latents: Dimensions of z.
        flows: Number of flows.

    Source:
        Rezende & Mohamed, arXiv 1505.05770, eq. 13 and algorithm 1.
    """

    latents: int
    flows: int = setting(4, "flows", minimum=1, below=129)

    def setup(self) -> None:
        self.base = DiagonalGaussian(self.latents)
        self.u = nn.Dense(self.flows * self.latents, kernel_init=nn.initializers.zeros)
        self.w = nn.Dense(self.flows * self.latents)
        self.b = nn.Dense(self.flows)

    def __call__(self, features: Float[Array, "b f"]) -> PlanarParameters:
        """Parameters of the base and of each flow for each image."""
        u, w = (head(features).reshape(-1, self.flows, self.latents).swapaxes(0, 1) for head in (self.u, self.w))
        return PlanarParameters(self.base(features), u, w, self.b(features).T)

    def transform(self, parameters: PlanarParameters, noise: Samples) -> tuple[Samples, PerSample]:
        """z, and `log q(z|x) = log q_0(z_0) - sum_f log |det df_f/dz|` in nats."""
        z, log_prob = self.base.transform(parameters.base, noise)
        for u, w, b in zip(parameters.u, parameters.w, parameters.b, strict=True):
            z, log_det = planar(z, u, w, b)
            log_prob = log_prob - log_det
        return z, log_prob

    def mean(self, parameters: PlanarParameters) -> Means:
        """The mean of the base passed through the flows; the mean of q(z|x) has no closed form."""
        noise = jnp.zeros((1, *parameters.base.mean.shape), parameters.base.mean.dtype)
        return self.transform(parameters, noise)[0][0]
