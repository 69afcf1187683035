"""Two stochastic layers, z = (z1, z2): their posterior and their prior.

Each of the two is a Gaussian whose parameters are known, followed by a Gaussian given a draw of the first:
`q(z|x) = q(z1|x) q(z2|z1)` and `p(z) = p(z2) p(z1|z2)`. Only z1 goes into the decoder.

Source:
    Burda et al., arXiv 1509.00519, eq. 1, 2 and section 5: lower 100, upper 50, hidden (100, 100).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.flows import ConditionalGaussian, GaussianParameters, diagonal_gaussian_log_prob, standard_normal_log_prob
from vae_jax.posteriors.posterior import Posterior
from vae_jax.priors.prior import Prior
from vae_jax.settings import setting
from vae_jax.shapes import Nats, Noise, PerSample, RandomKey

Layers = tuple[Float[Array, "*batch l"], Float[Array, "*batch u"]]


class _TwoLayers(nn.Module):
    """Sizes of the layers.

    Attributes:
        latents: Dimensions of z1.
        upper: Dimensions of z2.
        hidden: Widths of the tanh layers between them.
    """

    latents: int
    upper: int = setting(50, "dimensions of the upper layer", minimum=1)
    hidden: tuple[int, ...] = setting((100, 100), "widths between the layers, from its input on", minimum=1)

    @property
    def shape(self) -> tuple[tuple[int], tuple[int]]:
        """Of z1 and of z2."""
        return (self.latents,), (self.upper,)

    def drawn(self, gaussian: GaussianParameters, noise: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """The reparameterization trick of one layer."""
        return gaussian.mean + jnp.exp(0.5 * gaussian.logvar) * noise


class HierarchicalPosterior(_TwoLayers, Posterior):
    """`q(z|x) = q(z1|x) q(z2|z1)`, both Gaussians with independent dimensions.

    Attributes:
        latents: Dimensions of z1, whose mean and log-variance are linear in the features.
        upper: Dimensions of z2.
        hidden: Widths of the tanh layers from z1 to z2.
    """

    log_prob_anywhere = True

    @property
    def noise_size(self) -> int:
        """One number for each dimension of both layers."""
        return self.latents + self.upper

    def setup(self) -> None:
        self.first = ConditionalGaussian((), self.latents)
        self.second = ConditionalGaussian(self.hidden, self.upper)

    def __call__(self, features: Float[Array, "b f"]) -> GaussianParameters:
        """Mean and log-variance of q(z1|x); those of q(z2|z1) depend on z1."""
        return self.first(features)

    def transform(self, parameters: GaussianParameters, noise: Noise) -> tuple[Layers, PerSample]:
        """The reparameterization trick, one layer after the other; z, and log q(z|x) in nats."""
        lower = self.drawn(parameters, noise[..., : self.latents])
        z = lower, self.drawn(self.second(lower), noise[..., self.latents :])
        return z, self.log_prob(parameters, z)

    def log_prob(self, parameters: GaussianParameters, z: Layers) -> Nats:
        """`log q(z1|x) + log q(z2|z1)` in nats at any z."""
        first = diagonal_gaussian_log_prob(*parameters, z[0])
        return first + diagonal_gaussian_log_prob(*self.second(z[0]), z[1])

    def mean(self, parameters: GaussianParameters) -> Layers:
        """Mean of q(z1|x), and mean of q(z2|z1) at that z1."""
        return parameters.mean, self.second(parameters.mean).mean


class HierarchicalPrior(_TwoLayers, Prior):
    """`p(z) = p(z2) p(z1|z2)`: z2 is standard normal, z1 Gaussian given z2.

    Attributes:
        latents: Dimensions of z1, which alone goes into the decoder.
        upper: Dimensions of z2.
        hidden: Widths of the tanh layers from z2 to z1.
    """

    @property
    def decoded_shape(self) -> tuple[int]:
        """Only z1 goes into the decoder."""
        return (self.latents,)

    def decoded(self, z: Layers) -> Float[Array, "*batch l"]:
        """z1."""
        return z[0]

    def setup(self) -> None:
        self.conditional = ConditionalGaussian(self.hidden, self.latents)

    def log_prob(self, z: Layers) -> Nats:
        """`log p(z2) + log p(z1|z2)` in nats."""
        return standard_normal_log_prob(z[1]) + diagonal_gaussian_log_prob(*self.conditional(z[1]), z[0])

    def sample(self, key: RandomKey, num_samples: int) -> Layers:
        """Latents drawn from the prior, z2 first."""
        noise = jax.random.normal(key, (num_samples, self.latents + self.upper))
        upper = noise[:, self.latents :]
        return self.drawn(self.conditional(upper), noise[:, : self.latents]), upper
