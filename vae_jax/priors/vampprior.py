"""VampPrior: a mixture of the posteriors of learned images."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.priors.prior import Prior
from vae_jax.settings import setting
from vae_jax.shapes import Nats, RandomKey

# Pixels start at about 0.27 +- 0.2: dark, like most backgrounds, and all different.
_INITIAL_LOGIT = -1.0


class Components(NamedTuple):
    """Components of the mixture: q(z|u_c) for C images u.

    Attributes:
        posterior: The posterior of the model.
        parameters: Its parameters for each u.
    """

    posterior: nn.Module
    parameters: Any


class VampPrior(Prior):
    """`p(z) = 1/C sum_c q(z|u_c)`, where q is the posterior of the model and u are learned images.

    As it declares `needs_components`, the model encodes `pseudo_inputs()` and passes the components in.

    Attributes:
        latents: Shape of z: D, or `(h, w, c)` for a map.
        image_shape: Height, width, channels of the pseudo-inputs.
        components: Number of pseudo-inputs.

    Source:
        Tomczak & Welling, arXiv 1705.07120, eq. 9 (500 components there). A logistic function keeps pixels
        in [0, 1], instead of clipping, so that each has a gradient.
    """

    latents: int | tuple[int, int, int]
    image_shape: tuple[int, int, int]
    components: int = setting(100, "pseudo-inputs", minimum=1)

    needs_components = True
    takes_maps = True

    def setup(self) -> None:
        def initial_logits(key: RandomKey, shape: tuple[int, ...]) -> Float[Array, "c h w o"]:
            return _INITIAL_LOGIT + jax.random.normal(key, shape)

        self.logits = self.param("logits", initial_logits, (self.components, *self.image_shape))

    def pseudo_inputs(self) -> Float[Array, "c h w o"]:
        """The learned images, pixels in [0, 1]."""
        return jax.nn.sigmoid(self.logits)

    def log_prob(self, z: Float[Array, "..."], components: Components) -> Nats:
        """log p(z) in nats.

        Args:
            z: Latents.
            components: The posteriors of `pseudo_inputs()`.
        """
        batch = z.shape[: z.ndim - len(self.shape)]
        every = jnp.broadcast_to(z.reshape(-1, 1, *self.shape), (math.prod(batch), self.components, *self.shape))
        each = components.posterior.log_prob(components.parameters, every)
        return jax.nn.logsumexp(each, axis=-1).reshape(batch) - math.log(self.components)

    def sample(self, key: RandomKey, num_samples: int, components: Components) -> Float[Array, "n *z"]:
        """Latents drawn from the prior: a random pseudo-input, then its posterior.

        Args:
            key: For the draw.
            num_samples: Number of draws.
            components: The posteriors of `pseudo_inputs()`.
        """
        component_key, noise_key = jax.random.split(key)
        chosen = jax.random.randint(component_key, (num_samples,), 0, self.components)
        parameters = jax.tree.map(lambda values: values[chosen], components.parameters)
        noise = jax.random.normal(noise_key, (1, num_samples, components.posterior.noise_size))
        return components.posterior.transform(parameters, noise)[0][0]
