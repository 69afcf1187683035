"""FactorVAE: the bound with a price on the total correlation, which a second player estimates."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from vae_jax.models import Model, flat_latents, num_latents
from vae_jax.objectives.objective import MODEL, Loss, Player
from vae_jax.objectives.terms import draw_joint, elbo_terms
from vae_jax.settings import setting
from vae_jax.shapes import RandomKey, Scalar

_NAME = "discriminator"


class Discriminator(nn.Module):
    """`log D(z) / (1 - D(z))`, where D is the probability that z is a code and not one with its dimensions shuffled.

    Attributes:
        hidden: Widths of the layers.
    """

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n"]:
        """The logit of each code; its mean over codes estimates their total correlation."""
        for width in self.hidden:
            z = nn.leaky_relu(nn.Dense(width)(z), 0.2)
        return nn.Dense(1)(z)[:, 0]


def shuffled(z: Float[Array, "n d"], key: RandomKey) -> Float[Array, "n d"]:
    """Each dimension in an order of its own: codes from the product of the marginals of q(z)."""
    orders = jax.vmap(lambda key: jax.random.permutation(key, len(z)))(jax.random.split(key, z.shape[1]))
    return jnp.take_along_axis(z, orders.T, axis=0)


@dataclasses.dataclass(frozen=True)
class FactorVae:
    """`-elbo + gamma TC(z)` for the model, and a discriminator that estimates `TC = KL(q(z) || prod_j q(z_j))`.

    The estimate is the mean of `log D(z) / (1 - D(z))`. The discriminator minimizes the cross-entropy between codes of
    one half of the batch and shuffled codes of the other half. Both take a step at once, from one forward pass.

    Attributes:
        gamma: Weight of the total correlation.
        hidden: Widths of the discriminator.
        rate: Its learning rate (Adam with beta1 0.5, beta2 0.9).
        every: It takes a step at each so many steps of the model.
        start: Steps of the model before the total correlation has a price.

    Source:
        Kim & Mnih, arXiv 1802.05983, eq. 2 and 3, algorithm 2, and appendix A.
    """

    gamma: float = setting(10.0, "weight of the total correlation", minimum=0.0)
    hidden: tuple[int, ...] = setting((1000,) * 5, "widths of the discriminator", minimum=1)
    rate: float = setting(1e-4, "learning rate of the discriminator", minimum=0.0)
    every: int = setting(1, "steps of the model for each step of the discriminator", minimum=1)
    start: int = setting(0, "steps before the total correlation has a price", minimum=0)

    needs = ("density", "reparameterized")

    def players(self, model: Model) -> dict[str, Player]:
        """See `Player`."""
        network, codes = Discriminator(self.hidden), jnp.zeros((1, num_latents(model)))
        adam = optax.adam(self.rate, b1=0.5, b2=0.9)
        sometimes = optax.conditionally_mask(adam, lambda step, **_: jnp.asarray(step) % self.every == 0)
        return {_NAME: Player(lambda key: network.init(key, codes)["params"], adam if self.every == 1 else sometimes)}

    def __call__(self, model, variables, batch, key, step):
        """See `Objective`."""
        noise_key, shuffle_key = jax.random.split(key)
        joint = draw_joint(model, variables, batch, noise_key)
        terms, codes = elbo_terms(joint), flat_latents(joint.z, model.latents)[0]
        assert terms.elbo is not None
        params = variables["params"]["players"][_NAME]
        correlation = jnp.mean(self._logits(lax.stop_gradient(params), codes))
        price = jnp.where(step >= self.start, self.gamma, 0.0)
        loss = price * correlation - jnp.mean(terms.elbo)
        cost = self.cross_entropy(params, lax.stop_gradient(codes), shuffle_key)
        return Loss({MODEL: loss, _NAME: cost}, terms, joint.state, {"total_correlation": correlation})

    def cross_entropy(self, params: Any, codes: Float[Array, "n d"], key: RandomKey) -> Scalar:
        """What the discriminator minimizes, in nats: `1/2 E[-log D(z)] + 1/2 E[-log (1 - D(shuffled z))]`."""
        half = len(codes) // 2
        real, fake = self._logits(params, codes[:half]), self._logits(params, shuffled(codes[half:], key))
        return 0.5 * (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)))

    def _logits(self, params: Any, codes: Float[Array, "n d"]) -> Any:
        return Discriminator(self.hidden).apply({"params": params}, codes)
