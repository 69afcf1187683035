"""The path of annealed importance sampling, and the Hamiltonian transitions along it."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.models import Batch, Model, Variables, flat_latents, nested_latents, num_latents, sample_flat
from vae_jax.noise import normal_per_image
from vae_jax.shapes import Count, ImageIds, Means, PerSample, RandomKey, Samples, Scalar

STARTS = ("prior", "posterior")
_DRAWS_FOR_SCALES = 64
_SMALLEST_SCALE = 1e-3


class Ends(NamedTuple):
    """log f_0 and log f_1, in nats."""

    start: PerSample
    target: PerSample

    @property
    def difference(self) -> PerSample:
        return self.target - self.start

    def between(self, temperature: Scalar) -> PerSample:
        """log f_b."""
        return self.start + temperature * self.difference


class Path(NamedTuple):
    """The densities of some images: `ends(z)`, and how wide they are in each component."""

    ends: Callable[[Samples], Ends]
    start_scale: Means
    target_scale: Means

    def scale(self, temperature: Scalar) -> Means:
        """Standard deviation of f_b, as if both ends were Gaussians of independent components."""
        precision = (1.0 - temperature) / self.start_scale**2 + temperature / self.target_scale**2
        return jax.lax.rsqrt(precision)


def begin(
    model: Model, variables: Variables, batch: Batch, image_ids: ImageIds, key: RandomKey, num_chains: int, start: str
) -> tuple[Path, Float[Array, "k b d"], Callable[[Count], Float[Array, "k b d1"]]]:
    """The path of each image, where its chains start, and the noise of each transition; all z in one axis.

    The noise is a momentum, and one number that decides whether the transition is accepted.

    Raises:
        ValueError: If there is no such start for this model.
    """
    if start not in STARTS:
        raise ValueError(f"chains can't start from '{start}'; choose from {', '.join(STARTS)}")
    if start == "posterior" and "density_anywhere" not in model.traits:
        raise ValueError("the model lacks the trait density_anywhere; let the chains start from the prior")
    q = model.encode(variables, batch)
    key_of = functools.partial(jax.random.fold_in, key)

    def ends(z: Float[Array, "k b d"]) -> Ends:
        joint = model.joint(variables, batch, q, z=nested_latents(z, model.latents))
        log_start: Any = joint.log_prior if start == "prior" else joint.log_posterior
        return Ends(log_start, joint.log_likelihood + joint.log_prior)

    def noise_of(index: Count) -> Float[Array, "k b d1"]:
        of_transition = jax.random.fold_in(key_of(4), index)
        return normal_per_image(of_transition, image_ids, jnp.arange(num_chains), num_latents(model) + 1)

    def from_posterior(fold: int, num_samples: int) -> Float[Array, "k b d"]:
        noise = normal_per_image(key_of(fold), image_ids, jnp.arange(num_samples), model.noise_size)
        return flat_latents(model.draw(variables, q, noise)[0], model.latents)

    target_scale = jnp.maximum(jnp.std(from_posterior(0, _DRAWS_FOR_SCALES), axis=0), _SMALLEST_SCALE)
    if start == "posterior":
        return Path(ends, target_scale, target_scale), from_posterior(1, num_chains), noise_of

    def chains_of(image_id: Count, context: Any) -> Float[Array, "k d"]:
        contexts = None if context is None else jnp.broadcast_to(context, (num_chains, *context.shape))
        return sample_flat(model, variables, jax.random.fold_in(key_of(2), image_id), num_chains, contexts)

    z = jnp.swapaxes(jax.vmap(chains_of)(image_ids, batch.context), 0, 1)
    count = 4 * _DRAWS_FOR_SCALES
    contexts = None if batch.context is None else batch.context[jnp.arange(count) % len(image_ids)]
    typical = sample_flat(model, variables, key_of(3), count, contexts)
    start_scale = jnp.maximum(jnp.std(typical, axis=0), _SMALLEST_SCALE)
    return Path(ends, jnp.broadcast_to(start_scale, target_scale.shape), target_scale), z, noise_of


def transition(
    path: Path, z: Samples, temperature: Scalar, step_size: Scalar, num_leapfrog: int, noise: Float[Array, "k b d1"]
) -> tuple[Samples, Ends, PerSample]:
    """One step of Hamiltonian Monte Carlo that keeps f_b: where the chains are, log f there, and who moved.

    Source:
        Neal, arXiv 1206.1901, section 5.
    """
    step = step_size * path.scale(temperature)
    noise = noise.astype(z.dtype)
    momentum, log_uniform = noise[..., :-1], jax.scipy.stats.norm.logcdf(noise[..., -1])

    def total(z: Samples) -> tuple[Scalar, Ends]:
        ends = path.ends(z)
        return jnp.sum(ends.between(temperature)), ends

    slope_at = jax.value_and_grad(total, has_aux=True)
    (_, before), slope = slope_at(z)

    def leapfrog(_: Count, carry: Any) -> Any:
        z, momentum, slope, _ = carry
        momentum = momentum + 0.5 * step * slope
        z = z + step * momentum
        (_, ends), slope = slope_at(z)
        return z, momentum + 0.5 * step * slope, slope, ends

    proposed, last_momentum, _, after = jax.lax.fori_loop(0, num_leapfrog, leapfrog, (z, momentum, slope, before))
    kinetic = 0.5 * (jnp.sum(momentum**2, axis=-1) - jnp.sum(last_momentum**2, axis=-1))
    # A comparison with NaN is false: a trajectory that went astray is not accepted.
    accepted = log_uniform < after.between(temperature) - before.between(temperature) + kinetic
    z = jnp.where(accepted[..., None], proposed, z)
    ends = Ends(*(jnp.where(accepted, new, old) for new, old in zip(after, before, strict=True)))
    return z, ends, accepted.astype(z.dtype)
