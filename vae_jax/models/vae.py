"""The variational autoencoder of five parts."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.models.model import Batch, Context, Distribution, Joint, Variables, as_context
from vae_jax.priors import Components
from vae_jax.settings import given
from vae_jax.shapes import Nats, Noise, PerSample, RandomKey, Scalar


class Parts(nn.Module):
    """The five parts as one Linen module: their names are the first names of all parameters."""

    encoder: nn.Module
    posterior: nn.Module
    prior: nn.Module
    decoder: nn.Module
    likelihood: nn.Module

    def posterior_of(self, x: Array, context: Context) -> Any:
        """Parameters of q(z|x), in the form of the posterior."""
        seen = self.likelihood.encoder_input(x) if hasattr(self.likelihood, "encoder_input") else x
        return self.posterior(self.encoder(seen, **_named(context)))

    def outputs_at(self, z: Any, context: Context) -> Array:
        """The inputs of the likelihood for each pixel."""
        seen = self.prior.decoded(z)
        event = len(self.prior.decoded_shape)
        if context is not None:
            # The same for all samples of an example, and at all places of a map.
            at = context.reshape(*context.shape[:-1], *(1,) * (event - 1), context.shape[-1]).astype(seen.dtype)
            seen = jnp.concatenate([seen, jnp.broadcast_to(at, (*seen.shape[:-1], at.shape[-1]))], axis=-1)
        axis = seen.ndim - event - 1
        # The axis of examples first, or devices that each hold some would have to exchange them.
        rows = jnp.moveaxis(seen, axis, 0) if axis > 0 else seen
        outputs = self.decoder(rows.reshape(-1, *rows.shape[axis + 1 :]))
        outputs = outputs.reshape(*rows.shape[: axis + 1], *outputs.shape[1:])
        return jnp.moveaxis(outputs, 0, axis) if axis > 0 else outputs

    def components(self) -> tuple[Components, ...]:
        """The last argument of a prior that is a mixture of posteriors; nothing for other priors."""
        if not self.prior.needs_components:
            return ()
        return (Components(self.posterior, self.posterior_of(self.prior.pseudo_inputs(), None)),)

    def log_prior(self, z: Any, context: Context) -> Nats:
        """log p(z) in nats."""
        return self.prior.log_prob(z, *self.components(), **_named(context))

    def sample_prior(self, key: RandomKey, num_samples: int, context: Context) -> Any:
        """Latents drawn from p(z)."""
        return self.prior.sample(key, num_samples, *self.components(), **_named(context))

    def __call__(self, x: Array, noise: Noise, context: Context) -> Any:
        """Calls everything that has parameters."""
        z, _ = self.posterior.transform(self.posterior_of(x, context), noise)
        log_prior = self.log_prior(z, context if self.prior.takes_context else None)
        return self.likelihood.log_prob(self.outputs_at(z, context), x), log_prior


def _named(context: Context) -> dict[str, Any]:
    return {} if context is None else {"context": context}


@flax.struct.dataclass
class Decoded:
    """p(x|z): a likelihood, its parameters, and what the decoder says; see `Distribution`."""

    likelihood: Any = flax.struct.field(pytree_node=False)
    params: Any
    outputs: Array
    rows: bool = flax.struct.field(pytree_node=False, default=False)

    def mean(self) -> Array:
        """See `Distribution`."""
        return self._as_rows(self._call(type(self.likelihood).mean, self.outputs))

    def sample(self, key: RandomKey) -> Array:
        """See `Distribution`."""
        return self._as_rows(self._call(type(self.likelihood).sample, self.outputs, key))

    def log_prob(self, x: Array, observed: Array | None = None, log_factor: Any = None) -> Nats:
        """See `Distribution`."""
        if self.rows:
            x, observed = jax.tree.map(lambda values: values[..., None, :, None], (x, observed))
        given = {"observed": observed, "log_factor": log_factor}
        named = {name: value for name, value in given.items() if value is not None}
        return self._call(type(self.likelihood).log_prob, self.outputs, x, **named)

    def noise_stddev(self) -> Scalar | None:
        """See `Distribution`."""
        kind = type(self.likelihood)
        return self._call(kind.noise_stddev) if hasattr(kind, "noise_stddev") else None

    def _call(self, method: Any, *arguments: Any, **named: Any) -> Any:
        return self.likelihood.apply({"params": self.params}, *arguments, **named, method=method)

    def _as_rows(self, values: Array) -> Array:
        return values[..., 0, :, 0] if self.rows else values


@dataclasses.dataclass(frozen=True)
class VAE:
    """p(x, z) = p(x|z) p(z) with an encoder for q(z|x), from five parts. Rows go through them as maps `[B, 1, D, 1]`.

    Attributes:
        encoder: From images, and a `context` if there is one, to features.
        posterior: From features to q(z|x).
        prior: p(z).
        decoder: From latents, followed by the context if there is one, to the inputs of the likelihood.
        likelihood: p(x|z).
        context_size: Numbers in a context; 0 without one.
        rows: Whether x is `[B, D]`.
    """

    encoder: nn.Module
    posterior: Any
    prior: Any
    decoder: nn.Module
    likelihood: Any
    context_size: int = given(0)
    rows: bool = given(False)

    @property
    def parts(self) -> Parts:
        """The parts as one module."""
        return Parts(self.encoder, self.posterior, self.prior, self.decoder, self.likelihood)

    @property
    def traits(self) -> frozenset[str]:
        """See `Model`."""
        declared = {
            "density": self.posterior.has_density,
            "density_anywhere": self.posterior.log_prob_anywhere,
            "reparameterized": self.posterior.reparameterized,
            "factorized": self.posterior.factorized,
            "deterministic": self.posterior.deterministic,
            "diagonal_gaussian": self.posterior.diagonal_gaussian,
            "kl_per_dimension": self._has_closed_kl and self.posterior.factorized,
            "standard_normal": self.prior.is_standard_normal,
            "noise_width": getattr(self.likelihood, "has_width", False),
            "unroll_on_cpu": any(getattr(part, "unroll_on_cpu", False) for part in (self.encoder, self.decoder)),
        }
        return frozenset(name for name, has in declared.items() if has)

    @property
    def latents(self) -> Any:
        """See `Model`."""
        return jax.tree.map(
            lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
            self.posterior.shape,
            is_leaf=lambda node: all(isinstance(size, int) for size in node),
        )

    @property
    def noise_size(self) -> int:
        """See `Model`."""
        return self.posterior.noise_size

    @property
    def num_decoded(self) -> int:
        """See `Model`."""
        return math.prod(self.prior.decoded_shape)

    @property
    def measure(self) -> str:
        """See `Model`."""
        return self.likelihood.base_measure

    @property
    def support(self) -> frozenset[str]:
        """See `Model`."""
        return self.likelihood.support

    def init(self, key: RandomKey, batch: Batch) -> Variables:
        """See `Model`."""
        noise = jnp.zeros((1, batch.x.shape[0], self.noise_size))
        context = as_context(batch.context, self.context_size)
        return {"params": self.parts.init(key, self._as_map(batch.x), noise, context)["params"]}

    def encode(self, variables: Variables, batch: Batch, *, train: bool = False) -> Any:
        """See `Model`."""
        context = as_context(batch.context, self.context_size)
        return self._apply(variables, Parts.posterior_of, self._as_map(batch.x), context)

    def draw(self, variables: Variables, q: Any, noise: Noise) -> tuple[Any, PerSample | None]:
        """See `Model`."""
        return self._of_posterior(variables, type(self.posterior).transform, q, noise)

    def joint(
        self,
        variables: Variables,
        batch: Batch,
        q: Any = None,
        *,
        noise: Noise | None = None,
        z: Any = None,
        train: bool = False,
    ) -> Joint:
        """See `Model`."""
        q = self.encode(variables, batch) if q is None else q
        if z is None:
            assert noise is not None, "joint needs noise or z"
            z, log_posterior = self.draw(variables, q, noise)
        else:
            log_posterior = self.log_posterior(variables, q, z) if self.posterior.log_prob_anywhere else None
        px = self.decode(variables, z, batch.context)
        return Joint(
            z=z,
            log_likelihood=px.log_prob(batch.x, batch.observed),
            log_prior=self.log_prior(variables, z, batch.context),
            log_posterior=log_posterior,
            kl=self.kl(variables, q),
            px=px,
        )

    def log_posterior(self, variables: Variables, q: Any, z: Any, *, each: bool = False) -> Any:
        """See `Model`."""
        kind = type(self.posterior)
        return self._of_posterior(variables, kind.log_prob_per_dimension if each else kind.log_prob, q, z)

    def kl(self, variables: Variables, q: Any) -> Float[Array, "b g"] | None:
        """See `Model`."""
        return self._of_posterior(variables, type(self.posterior).kl_groups, q) if self._has_closed_kl else None

    def point(self, variables: Variables, q: Any) -> Any:
        """See `Model`."""
        return self._of_posterior(variables, type(self.posterior).mean, q)

    def decode(self, variables: Variables, z: Any, context: Context = None) -> Distribution:
        """See `Model`."""
        outputs = self._apply(variables, Parts.outputs_at, z, as_context(context, self.context_size))
        return Decoded(self.likelihood, variables["params"].get("likelihood", {}), outputs, self.rows)

    def sample_prior(self, variables: Variables, key: RandomKey, num_samples: int, context: Context = None) -> Any:
        """See `Model`."""
        context = as_context(context, self.context_size) if self.prior.takes_context else None
        return self._apply(variables, Parts.sample_prior, key, num_samples, context)

    def log_prior(self, variables: Variables, z: Any, context: Context = None) -> Nats:
        """See `Model`."""
        context = as_context(context, self.context_size) if self.prior.takes_context else None
        return self._apply(variables, Parts.log_prior, z, context)

    @property
    def _has_closed_kl(self) -> bool:
        return self.posterior.analytic_kl and self.prior.is_standard_normal

    def _as_map(self, x: Array) -> Array:
        return x[:, None, :, None] if self.rows else x

    def _apply(self, variables: Variables, method: Callable[..., Any], *arguments: Any) -> Any:
        return self.parts.apply({"params": variables["params"]}, *arguments, method=method)

    def _of_posterior(self, variables: Variables, method: Callable[..., Any], *arguments: Any) -> Any:
        return self.posterior.apply({"params": variables["params"].get("posterior", {})}, *arguments, method=method)


def refusal(posterior: Any, prior: Any, context_size: int = 0) -> str | None:
    """Why a posterior and a prior can't be combined, from what they declare.

    Args:
        posterior: q(z|x).
        prior: p(z).
        context_size: Numbers in a context of the model; 0 without one.

    Returns:
        The reason and what to choose instead; None if they can be combined.
    """
    names = f"prior {type(prior).__name__} and posterior {type(posterior).__name__}"
    if posterior.shape != prior.shape:
        return (
            f"{names} don't go together: they are of {prior.shape} and {posterior.shape} latents; "
            "a hierarchical prior goes with the hierarchical posterior of the same sizes"
        )
    if prior.needs_components and not posterior.log_prob_anywhere:
        return (
            f"{names} don't go together: the prior is a mixture of posteriors, whose density it needs at any z, "
            "and this posterior declares log_prob_anywhere = False; choose a Gaussian posterior"
        )
    if prior.needs_components and context_size:
        return (
            f"{names} don't go together in a model with a context: the images that the prior learns "
            "have none; choose a prior that is no mixture of posteriors"
        )
    if prior.takes_context and not context_size:
        return (
            f"prior {type(prior).__name__} depends on a context, and this model has none; set model.conditional to "
            "True, with data that has labels or contexts"
        )
    return None
