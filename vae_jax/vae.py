"""The variational autoencoder: a Linen module of five parts."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vae_jax.priors import Components
from vae_jax.shapes import (
    ImageBatch,
    Means,
    Nats,
    Noise,
    Outputs,
    PerImage,
    PerSample,
    Pixels,
    Points,
    RandomKey,
    Samples,
    Scalar,
)

Params = Any
Label = Int[Array, "b"] | None


class JointTerms(NamedTuple):
    """The terms of bounds and estimators, for K samples of z for each of B images, in nats.

    Attributes:
        z: The samples.
        log_likelihood: log p(x|z).
        log_prior: log p(z).
        log_posterior: log q(z|x); None if the posterior has no density.
        kl: KL(q(z|x) || p(z)) in closed form; None if there is none.
    """

    z: Samples
    log_likelihood: PerSample
    log_prior: PerSample
    log_posterior: PerSample | None
    kl: PerImage | None

    @property
    def log_weights(self) -> PerSample:
        """Log of the importance weights, log p(x, z) - log q(z|x).

        Raises:
            ValueError: If the posterior has no density.
        """
        if self.log_posterior is None:
            raise ValueError(
                "there are no importance weights: the posterior declares has_density = False; "
                "use one with a density, such as diagonal_gaussian"
            )
        return self.log_likelihood + self.log_prior - self.log_posterior


class VAE(nn.Module):
    """p(x, z) = p(x|z) p(z) with an encoder for q(z|x); all except p(z) may depend on a class label.

    The noise for q is an argument, so that every method is a function of its arguments and the parameters.

    Attributes:
        encoder: From images, and `context` if there are classes, to features.
        posterior: From features to q(z|x).
        prior: p(z).
        decoder: From latents, followed by the class if there are any, to the inputs of the likelihood.
        likelihood: p(x|z).
        num_classes: Labels are below this; 0 for a model without labels. If it isn't 0, every method with a label
            argument needs one.
    """

    encoder: nn.Module
    posterior: nn.Module
    prior: nn.Module
    decoder: nn.Module
    likelihood: nn.Module
    num_classes: int = 0

    @property
    def noise_size(self) -> int:
        """Standard normal numbers for one sample from q(z|x)."""
        return self.posterior.noise_size

    def encode(self, x: ImageBatch, label: Label = None) -> Any:
        """Parameters of q(z|x), in the form of the posterior."""
        context = {"context": self._one_hot(label)} if self.num_classes else {}
        return self.posterior(self.encoder(x, **context))

    def posterior_mean(self, x: ImageBatch, label: Label = None) -> Means:
        """Mean of q(z|x), or what the posterior uses instead."""
        return self.posterior.mean(self.encode(x, label))

    def decode(self, z: Points, label: Label = None) -> Outputs:
        """The inputs of the likelihood for each pixel.

        Args:
            z: Latents; the first `prior.num_decoded` dimensions go into the decoder.
            label: Class of each image, for all samples of z of that image.
        """
        seen = z[..., : self.prior.num_decoded]
        if self.num_classes:
            one_hot = self._one_hot(label).astype(z.dtype)
            seen = jnp.concatenate([seen, jnp.broadcast_to(one_hot, (*z.shape[:-1], self.num_classes))], axis=-1)
        # The axis of images first, or devices that each hold some images would have to exchange them.
        rows = jnp.moveaxis(seen, -2, 0) if z.ndim > 2 else seen
        outputs = self.decoder(rows.reshape(-1, rows.shape[-1]))
        outputs = outputs.reshape(*rows.shape[:-1], *outputs.shape[1:])
        return jnp.moveaxis(outputs, 0, z.ndim - 2) if z.ndim > 2 else outputs

    def decode_mean(self, z: Points, label: Label = None) -> Pixels:
        """Mean of p(x|z): probabilities for binary pixels."""
        return self.likelihood.mean(self.decode(z, label))

    def decode_sample(self, z: Points, key: RandomKey, label: Label = None) -> Pixels:
        """A draw from p(x|z)."""
        return self.likelihood.sample(self.decode(z, label), key)

    def noise_stddev(self) -> Scalar | None:
        """Standard deviation shared by all pixels; None for a likelihood without one."""
        one_for_all = getattr(self.likelihood, "noise_stddev", None)
        return None if one_for_all is None else one_for_all()

    def sample_prior(self, key: RandomKey, num_samples: int) -> Float[Array, "n d"]:
        """Latents drawn from p(z)."""
        return self.prior.sample(key, num_samples, *self._components())

    def log_prior(self, z: Points) -> Nats:
        """log p(z) in nats."""
        return self.prior.log_prob(z, *self._components())

    def closed_form_kl(self, parameters: Any) -> PerImage | None:
        """KL(q(z|x) || p(z)) in nats per image; None if there is no closed form."""
        if self.posterior.analytic_kl and self.prior.is_standard_normal:
            return self.posterior.kl_to_standard_normal(parameters)
        return None

    def kl_groups(self, parameters: Any) -> Float[Array, "b g"] | None:
        """The closed form for each latent dimension, if it is a sum over them, else as one group."""
        kl = self.closed_form_kl(parameters)
        if kl is None or not getattr(self.posterior, "factorized", False):
            return None if kl is None else kl[:, None]
        return self.posterior.kl_per_dimension(parameters)

    def log_posterior(self, parameters: Any, z: Samples) -> PerSample:
        """log q(z|x) in nats; only for a posterior that declares `log_prob_anywhere`."""
        return self.posterior.log_prob(parameters, z)

    def log_posterior_per_dimension(self, parameters: Any, z: Float[Array, "k #b d"]) -> Samples:
        """log q(z_d|x) in nats; only for a posterior that declares `factorized`."""
        return self.posterior.log_prob_per_dimension(parameters, z)

    def transform(self, parameters: Any, noise: Noise) -> tuple[Samples, PerSample | None]:
        """The reparameterization trick, `z = g(noise; parameters)`; and log q(z|x) or None."""
        return self.posterior.transform(parameters, noise)

    def log_joint(self, x: ImageBatch, z: Samples, label: Label = None) -> tuple[PerSample, PerSample]:
        """log p(x|z) and log p(z) in nats, at any z."""
        return self.likelihood.log_prob(self.decode(z, label), x), self.log_prior(z)

    @property
    def noise_can_be_rescaled(self) -> bool:
        """Whether the noise of p(x|z) has a width."""
        return hasattr(self.likelihood, "log_prob_rescaled")

    def log_likelihood_rescaled(
        self, x: ImageBatch, z: Samples, log_factors: Float[Array, "g"], label: Label = None
    ) -> Float[Array, "g k b"]:
        """log p(x|z) in nats, with the width of its noise times `exp(log_factor)`, for each factor."""
        outputs = self.decode(z, label)
        return jnp.stack([self.likelihood.log_prob_rescaled(outputs, x, factor) for factor in log_factors])

    def joint_terms(self, parameters: Any, x: ImageBatch, noise: Noise, label: Label = None) -> JointTerms:
        """The terms at samples z = g(noise; parameters).

        Args:
            parameters: Of q(z|x), from `encode`.
            x: Images.
            noise: Standard normal numbers, `e = noise_size` for each sample.
            label: Class of each image.

        Returns:
            The terms; under `jit` unused terms aren't computed.
        """
        z, log_posterior = self.transform(parameters, noise)
        return self._terms(parameters, x, z, log_posterior, label)

    def joint_terms_at(self, parameters: Any, x: ImageBatch, z: Samples, label: Label = None) -> JointTerms:
        """The terms at any z; only for a posterior that declares `log_prob_anywhere`."""
        return self._terms(parameters, x, z, self.log_posterior(parameters, z), label)

    def _terms(
        self, parameters: Any, x: ImageBatch, z: Samples, log_posterior: PerSample | None, label: Label
    ) -> JointTerms:
        log_likelihood, log_prior = self.log_joint(x, z, label)
        return JointTerms(
            z=z,
            log_likelihood=log_likelihood,
            log_prior=log_prior,
            log_posterior=log_posterior,
            kl=self.closed_form_kl(parameters),
        )

    def __call__(self, x: ImageBatch, noise: Noise, label: Label = None) -> JointTerms:
        """Encodes x and returns `joint_terms`."""
        return self.joint_terms(self.encode(x, label), x, noise, label)

    def _components(self) -> tuple[Components, ...]:
        """The last argument of a prior that is a mixture of posteriors; nothing for other priors."""
        if not self.prior.needs_components:
            return ()
        return (Components(self.posterior, self.encode(self.prior.pseudo_inputs())),)

    def _one_hot(self, label: Label) -> Float[Array, "b n"]:
        if label is None:
            raise ValueError(f"this model is conditioned on {self.num_classes} classes; give the label of each image")
        return jax.nn.one_hot(label, self.num_classes)


def refusal(posterior: nn.Module, prior: nn.Module, num_classes: int = 0) -> str | None:
    """Why a posterior and a prior can't be combined, from what they declare.

    Args:
        posterior: q(z|x).
        prior: p(z).
        num_classes: Classes of the model; 0 without labels.

    Returns:
        The reason and what to choose instead; None if they can be combined.
    """
    names = f"prior {type(prior).__name__} and posterior {type(posterior).__name__}"
    if posterior.latents != prior.latents:
        return (
            f"{names} don't go together: they are of {prior.latents} and {posterior.latents} latents; "
            "a hierarchical prior goes with the hierarchical posterior of the same sizes"
        )
    if prior.needs_components and not posterior.log_prob_anywhere:
        return (
            f"{names} don't go together: the prior is a mixture of posteriors, whose density it needs at any z, "
            "and this posterior declares log_prob_anywhere = False; choose a Gaussian posterior"
        )
    if prior.needs_components and num_classes:
        return (
            f"{names} don't go together in a model conditioned on class labels: the images that the prior learns "
            "have no label; choose a prior that is no mixture of posteriors"
        )
    return None


def init_params(model: VAE, key: RandomKey, image_shape: tuple[int, int, int]) -> Params:
    """Initial parameters.

    Args:
        model: The model.
        key: For the random initialization.
        image_shape: Height, width, channels.

    Returns:
        A nested dictionary with an entry for each part with parameters.
    """
    x = jnp.zeros((1, *image_shape))
    noise = jnp.zeros((1, 1, model.noise_size))
    label = jnp.zeros((1,), jnp.int32) if model.num_classes else None
    return jax.jit(model.init)(key, x, noise, label)["params"]


def apply(model: VAE, params: Params, method: str, *args: Any) -> Any:
    """`model.method(*args)` as a pure function of the parameters.

    Args:
        model: The model.
        params: Its parameters.
        method: Name of one of its methods, such as `"encode"` or `"decode_mean"`.
        args: Arguments of the method.
    """
    return model.apply({"params": params}, *args, method=method)
