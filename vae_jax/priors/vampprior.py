"""VampPrior: a mixture of the posteriors of learned images."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.priors.prior import Prior
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
        latents: Shape of z: D, `(h, w, c)`, or a tuple with the shape of each layer.
        image_shape: Height, width, channels of the pseudo-inputs.
        components: Number of pseudo-inputs.

    Source:
        Tomczak & Welling, arXiv 1705.07120, eq. 9 (500 components there). A logistic function keeps pixels
        in [0, 1], instead of clipping, so that each has a gradient.
    """

    latents: Any
    image_shape: tuple[int, int, int]
    components: int = 500

    needs_components = True

    def setup(self) -> None:
        def initial_logits(key: RandomKey, shape: tuple[int, ...]) -> Float[Array, "c h w o"]:
            return _INITIAL_LOGIT + jax.random.normal(key, shape)

        self.logits = self.param("logits", initial_logits, (self.components, *self.image_shape))

    def pseudo_inputs(self) -> Float[Array, "c h w o"]:
        """The learned images, pixels in [0, 1]."""
        return jax.nn.sigmoid(self.logits)

    def log_prob(self, z: Any, components: Components) -> Nats:
        """log p(z) in nats.

        Args:
            z: Latents.
            components: The posteriors of `pseudo_inputs()`.
        """
        layers, structure = jax.tree.flatten(z)
        shapes = self.shape if structure != jax.tree.structure(0) else (self.shape,)
        batch = layers[0].shape[: layers[0].ndim - len(shapes[0])]
        every = [
            jnp.broadcast_to(leaf.reshape(-1, 1, *shape), (math.prod(batch), self.components, *shape))
            for leaf, shape in zip(layers, shapes, strict=True)
        ]
        each = components.posterior.log_prob(components.parameters, jax.tree.unflatten(structure, every))
        return jax.nn.logsumexp(each, axis=-1).reshape(batch) - math.log(self.components)

    def sample(self, key: RandomKey, num_samples: int, components: Components) -> Any:
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
        return jax.tree.map(lambda leaf: leaf[0], components.posterior.transform(parameters, noise)[0])
