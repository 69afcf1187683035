"""The variational autoencoder: one Linen module that owns its five parts and joins them."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Params = Any


class JointTerms(NamedTuple):
    """What bounds and estimators are made of, for K samples of z for each of B images; all in nats.

    Attributes:
        z: The samples.
        log_likelihood: log p(x|z).
        log_prior: log p(z).
        log_posterior: log q(z|x).
        kl: KL(q(z|x) || p(z)) in closed form, where there is one.
    """

    z: Float[Array, "k b d"]
    log_likelihood: Float[Array, "k b"]
    log_prior: Float[Array, "k b"]
    log_posterior: Float[Array, "k b"]
    kl: Float[Array, "b"] | None

    @property
    def log_weights(self) -> Float[Array, "k b"]:
        """Log of the importance weights, log p(x, z) - log q(z|x)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


class VAE(nn.Module):
    """p(x, z) = p(x|z) p(z) with an encoder for q(z|x).

    Nothing in here draws noise for q: it comes in as an argument, so that every method is a function of
    its arguments and the parameters.

    Attributes:
        encoder: Images to features.
        posterior: Features to q(z|x).
        prior: p(z).
        decoder: Latents to the numbers that the likelihood needs.
        likelihood: p(x|z) from those numbers.
    """

    encoder: nn.Module
    posterior: nn.Module
    prior: nn.Module
    decoder: nn.Module
    likelihood: nn.Module

    @property
    def noise_size(self) -> int:
        """Standard normal numbers that one sample from q(z|x) takes."""
        return self.posterior.noise_size

    def encode(self, x: Float[Array, "b h w c"]) -> Any:
        """Parameters of q(z|x), as the posterior defines them."""
        return self.posterior(self.encoder(x))

    def posterior_mean(self, x: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        """Mean of q(z|x)."""
        return self.posterior.mean(self.encode(x))

    def decode(self, z: Float[Array, "*batch d"]) -> Float[Array, "*batch h w o"]:
        """What the likelihood needs to know of each pixel."""
        outputs = self.decoder(z.reshape(-1, z.shape[-1]))
        return outputs.reshape(*z.shape[:-1], *outputs.shape[1:])

    def decode_mean(self, z: Float[Array, "*batch d"]) -> Float[Array, "*batch h w c"]:
        """Mean of p(x|z): probabilities for binary pixels."""
        return self.likelihood.mean(self.decode(z))

    def decode_sample(self, z: Float[Array, "*batch d"], key: Key[Array, ""]) -> Float[Array, "*batch h w c"]:
        """A draw from p(x|z)."""
        return self.likelihood.sample(self.decode(z), key)

    def sample_prior(self, key: Key[Array, ""], num_samples: int) -> Float[Array, "n d"]:
        """Latents drawn from p(z)."""
        return self.prior.sample(key, num_samples)

    def closed_form_kl(self, parameters: Any) -> Float[Array, "b"] | None:
        """KL(q(z|x) || p(z)) in nats per image, or None where there is no closed form."""
        if self.posterior.analytic_kl and self.prior.is_standard_normal:
            return self.posterior.kl_to_standard_normal(parameters)
        return None

    def joint_terms(self, parameters: Any, x: Float[Array, "b h w c"], noise: Float[Array, "k b e"]) -> JointTerms:
        """Samples z = g(noise; parameters) and everything known of them.

        Args:
            parameters: Of q(z|x), from `encode`.
            x: Images.
            noise: Standard normal numbers, `e = noise_size` for each sample.

        Returns:
            The terms; what the caller doesn't use is not computed under `jit`.
        """
        z, log_posterior = self.posterior.transform(parameters, noise)
        return JointTerms(
            z=z,
            log_likelihood=self.likelihood.log_prob(self.decode(z), x),
            log_prior=self.prior.log_prob(z),
            log_posterior=log_posterior,
            kl=self.closed_form_kl(parameters),
        )

    def __call__(self, x: Float[Array, "b h w c"], noise: Float[Array, "k b e"]) -> JointTerms:
        """Encodes x and gives `joint_terms`."""
        return self.joint_terms(self.encode(x), x, noise)


def init_params(model: VAE, key: Key[Array, ""], image_shape: tuple[int, int, int]) -> Params:
    """Fresh parameters.

    Args:
        model: What needs them.
        key: What they are drawn from.
        image_shape: Height, width, channels.

    Returns:
        A nested dictionary with an entry for each part that has parameters.
    """
    x = jnp.zeros((1, *image_shape))
    noise = jnp.zeros((1, 1, model.noise_size))
    return jax.jit(model.init)(key, x, noise)["params"]


def apply(model: VAE, params: Params, method: str, *args: Any) -> Any:
    """`model.method(*args)` as a pure function of the parameters.

    Args:
        model: The model.
        params: Its parameters.
        method: Name of one of its methods, such as `"encode"` or `"decode_mean"`.
        args: What the method takes.
    """
    return model.apply({"params": params}, *args, method=method)
