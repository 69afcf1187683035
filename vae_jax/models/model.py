"""The protocol of models: all that objectives, estimators, diagnosis, report and export know of one."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vae_jax.errors import UserError
from vae_jax.shapes import Nats, Noise, PerSample, RandomKey, Scalar

Variables = Mapping[str, Any]
"""`{"params": ...}`, and `"state"` for a model with numbers that change without gradients."""
Context = Int[Array, "b"] | Float[Array, "b context"] | None
"""Classes, which a model sees as one-hot numbers, or the numbers themselves; None for a model without a context."""


class Batch(NamedTuple):
    """Examples, as a model sees them; None where there is nothing.

    Attributes:
        x: `[B, H, W, C]` images or `[B, D]` rows.
        observed: Which values of x are known, in the shape of x; None if all are.
        context: What the model is conditioned on, for each example.
    """

    x: Float[Array, "b *event"]
    observed: Bool[Array, "b *event"] | None = None
    context: Context = None

    def masked(self) -> "Batch":
        """The same examples with NaN taken as missing: 0 in x, where encoders see it, and not observed."""
        observed = ~jnp.isnan(self.x)
        return self._replace(x=jnp.where(observed, self.x, 0.0), observed=observed)


@runtime_checkable
class Distribution(Protocol):
    """p(x|z) at some z, `[*batch, *event]`; a pytree."""

    def mean(self) -> Array:
        """The mean of each value: probabilities for binary ones."""
        ...

    def sample(self, key: RandomKey) -> Array:
        """A draw."""
        ...

    def log_prob(self, x: Array, observed: Array | None = None, log_factor: Any = None) -> Nats:
        """log p(x|z) in nats, of the observed values.

        Args:
            x: Examples, whose leading axes broadcast against those of z.
            observed: Which values count; None for all.
            log_factor: Log of a factor of the width of the noise; for a model with the trait `noise_width`.
        """
        ...

    def noise_stddev(self) -> Scalar | None:
        """The standard deviation shared by all values; None where there is none."""
        ...


class Joint(NamedTuple):
    """The terms of bounds and estimators, for K samples of z for each of B examples, in nats.

    Attributes:
        z: The samples: a tree of arrays `[K, B, *shape]`.
        log_likelihood: log p(x|z) of the observed values.
        log_prior: log p(z).
        log_posterior: log q(z|x); None if it isn't known.
        kl: KL(q(z|x) || p(z)) in closed form, for each group of latents that it is a sum over; None without one.
        px: p(x|z).
        state: What changes without gradients, after this batch; None for a model without such numbers.
    """

    z: Any
    log_likelihood: PerSample
    log_prior: PerSample
    log_posterior: PerSample | None
    kl: Float[Array, "b g"] | None
    px: Any
    state: Any = None

    @property
    def log_weights(self) -> PerSample:
        """Log of the importance weights, log p(x, z) - log q(z|x).

        Raises:
            ValueError: If log q isn't known.
        """
        if self.log_posterior is None:
            raise ValueError(
                "there are no importance weights: the model lacks the trait density; use a posterior with one, such as "
                "diagonal_gaussian"
            )
        return self.log_likelihood + self.log_prior - self.log_posterior


@runtime_checkable
class Model(Protocol):
    """p(x, z) and q(z|x) as pure functions of variables.

    Everything that is random takes its noise or its key as an argument. What a model can do is said by `traits`:

    - `density`: log q(z|x) is known at samples of q (a point mass has no density);
    - `density_anywhere`: at any z;
    - `reparameterized`: z is differentiable in the parameters of q;
    - `factorized`: q is a product over dimensions, so that `log_posterior` takes `each=True`;
    - `diagonal_gaussian`: q is a `GaussianParameters`, a Gaussian with independent dimensions;
    - `deterministic`: z is a function of x alone;
    - `kl_per_dimension`: `kl` has a group for each latent;
    - `standard_normal`: p(z) is a standard normal;
    - `noise_width`: p(x|z) has noise whose width can be rescaled;
    - `unroll_on_cpu`: compiled loops around its gradients are slow on CPUs.
    """

    @property
    def traits(self) -> frozenset[str]:
        """What it can do."""
        ...

    @property
    def latents(self) -> Any:
        """Shape of z without axes for samples and examples: a tree of `jax.ShapeDtypeStruct`."""
        ...

    @property
    def noise_size(self) -> int:
        """Standard normal numbers for one sample of z."""
        ...

    @property
    def num_decoded(self) -> int:
        """How many numbers of z p(x|z) depends on: the first ones of `flat_latents`."""
        ...

    @property
    def measure(self) -> str:
        """What densities of x refer to: `binary`, `256 levels`, `continuous on [0, 1]`."""
        ...

    @property
    def support(self) -> frozenset[str]:
        """The values that p(x|z) is a density of; see `vae_jax.likelihoods`."""
        ...

    @property
    def context_size(self) -> int:
        """Numbers in a context; 0 for a model without one."""
        ...

    def init(self, key: RandomKey, batch: Batch) -> Variables:
        """Fresh variables, for examples of the shape of these."""
        ...

    def encode(self, variables: Variables, batch: Batch, *, train: bool = False) -> Any:
        """q(z|x) of each example: a tree of arrays `[B, ...]`."""
        ...

    def draw(self, variables: Variables, q: Any, noise: Noise) -> tuple[Any, PerSample | None]:
        """The reparameterization trick, `z = g(noise; q)`; and log q(z|x) in nats, or None."""
        ...

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
        """All terms, at samples drawn from q with the noise, or at a given z."""
        ...

    def log_posterior(self, variables: Variables, q: Any, z: Any, *, each: bool = False) -> Any:
        """log q(z|x) in nats at any z; with `each` for every dimension, `[K, B, D]`."""
        ...

    def kl(self, variables: Variables, q: Any) -> Float[Array, "b g"] | None:
        """KL(q(z|x) || p(z)) in closed form, by groups, in nats; None without one."""
        ...

    def point(self, variables: Variables, q: Any) -> Any:
        """The mean of q, or what stands for it."""
        ...

    def decode(self, variables: Variables, z: Any, context: Context = None) -> Distribution:
        """p(x|z), for z with any axes in front."""
        ...

    def sample_prior(self, variables: Variables, key: RandomKey, num_samples: int, context: Context = None) -> Any:
        """Latents drawn from p(z)."""
        ...

    def log_prior(self, variables: Variables, z: Any, context: Context = None) -> Nats:
        """log p(z) in nats at any z."""
        ...


def as_context(given: Context, size: int) -> Float[Array, "b context"] | None:
    """A context as the numbers that encoder, decoder and prior see.

    Args:
        given: Classes or numbers.
        size: `Model.context_size`; with 0 nothing is seen.

    Raises:
        ValueError: If a model with a context is given none.
    """
    if not size:
        return None
    if given is None:
        raise ValueError(f"this model has a context of {size} numbers or classes; give that of each example")
    return given if jnp.issubdtype(jnp.result_type(given), jnp.floating) else jax.nn.one_hot(given, size)


def init_variables(model: Model, key: RandomKey, shape: tuple[int, ...]) -> Variables:
    """Fresh variables of a model for examples of a shape."""
    context = jnp.zeros((1, model.context_size)) if model.context_size else None
    return jax.jit(model.init)(key, Batch(jnp.zeros((1, *shape)), context=context))


@functools.partial(jax.jit, static_argnums=0)
def noise_stddev(model: Model, variables: Variables) -> Scalar | None:
    """The standard deviation of p(x|z) that all values share; None where there is none."""
    z = jax.tree.map(lambda like: jnp.zeros((1, *like.shape)), model.latents)
    return model.decode(variables, z, jnp.zeros((1, model.context_size))).noise_stddev()


def check_has_density(model: Model) -> None:
    """Refuses a model without p(z) and log p(x).

    Raises:
        UserError: If its posterior has no density.
    """
    if "density" not in model.traits:
        raise UserError(
            "a plain autoencoder has no distribution to sample from or to score by: its posterior has no density; see "
            "its reconstructions, or train with another posterior, such as diagonal_gaussian"
        )
