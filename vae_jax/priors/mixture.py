"""Learned mixture of Gaussians."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.flows import diagonal_gaussian_log_prob
from vae_jax.priors.prior import Prior
from vae_jax.settings import setting
from vae_jax.shapes import Nats, Points, RandomKey


class GaussianMixture(Prior):
    """`p(z) = sum_c pi_c N(z; mean_c, exp(logvar_c))`, with learned weights, means and variances.

    Components start with equal weights, unit variances and means drawn from a standard normal.

    Attributes:
        latents: Dimensions of z.
        components: Number of Gaussians.
    """

    latents: int
    components: int = setting(100, "Gaussians", minimum=1)

    def setup(self) -> None:
        shape = (self.components, self.latents)
        self.logits = self.param("logits", nn.initializers.zeros, (self.components,))
        self.means = self.param("means", nn.initializers.normal(1.0), shape)
        self.logvars = self.param("logvars", nn.initializers.zeros, shape)

    def log_prob(self, z: Points) -> Nats:
        """log p(z) in nats."""
        each = diagonal_gaussian_log_prob(self.means, self.logvars, z[..., None, :])
        return jax.nn.logsumexp(each + jax.nn.log_softmax(self.logits), axis=-1)

    def sample(self, key: RandomKey, num_samples: int) -> Float[Array, "n d"]:
        """Latents drawn from the prior."""
        component_key, noise_key = jax.random.split(key)
        component = jax.random.categorical(component_key, self.logits, shape=(num_samples,))
        noise = jax.random.normal(noise_key, (num_samples, self.latents), self.means.dtype)
        return self.means[component] + jnp.exp(0.5 * self.logvars[component]) * noise
