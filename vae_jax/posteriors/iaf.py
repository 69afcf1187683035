"""Inverse autoregressive flows on a diagonal Gaussian."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.flows import AutoregressiveNetwork, GaussianParameters, autoregressive_step
from vae_jax.posteriors.diagonal_gaussian import DiagonalGaussian
from vae_jax.posteriors.posterior import Posterior
from vae_jax.settings import setting
from vae_jax.shapes import Means, PerSample, Samples


class IAFParameters(NamedTuple):
    """For each image: the Gaussian before the flows, and the context of the flows (h in the paper)."""

    base: GaussianParameters
    context: Float[Array, "b f"]


class IAF(Posterior):
    """A diagonal Gaussian transformed by inverse autoregressive flows with the features as context.

    The order of the dimensions is reversed between flows. Inverting a flow takes D sequential steps, so log q is
    available only for its samples.

    Attributes:
        latents: Dimensions of z.
        flows: Number of flows.
        hidden: Widths of the layers of each flow's masked network.

    Source:
        Kingma et al., arXiv 1606.04934, algorithm 1.
    """

    latents: int
    flows: int = setting(4, "flows", minimum=1, below=129)
    hidden: tuple[int, ...] = setting((320, 320), "widths in each flow", minimum=1)

    def setup(self) -> None:
        self.base = DiagonalGaussian(self.latents)
        self.networks = [AutoregressiveNetwork(self.hidden) for _ in range(self.flows)]

    def __call__(self, features: Float[Array, "b f"]) -> IAFParameters:
        """Parameters of the base, and the context, for each image."""
        return IAFParameters(self.base(features), features)

    def transform(self, parameters: IAFParameters, noise: Samples) -> tuple[Samples, PerSample]:
        """z, and `log q(z|x) = log q_0(z_0) - sum_f log |det df_f/dz|` in nats."""
        z, log_prob = self.base.transform(parameters.base, noise)
        for index, network in enumerate(self.networks):
            if index > 0:
                z = z[..., ::-1]
            z, log_det = autoregressive_step(z, *network(z, parameters.context))
            log_prob = log_prob - log_det
        return z, log_prob

    def mean(self, parameters: IAFParameters) -> Means:
        """The mean of the base passed through the flows; the mean of q(z|x) has no closed form."""
        noise = jnp.zeros((1, *parameters.base.mean.shape), parameters.base.mean.dtype)
        return self.transform(parameters, noise)[0][0]
