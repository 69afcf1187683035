"""The path of annealed importance sampling, and the Hamiltonian transitions along it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.noise import normal_per_image
from vae_jax.shapes import Count, ImageBatch, ImageIds, Means, PerSample, RandomKey, Samples, Scalar
from vae_jax.vae import VAE, Label, Params, apply

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
    model: VAE,
    params: Params,
    x: ImageBatch,
    image_ids: ImageIds,
    key: RandomKey,
    num_chains: int,
    start: str,
    label: Label,
) -> tuple[Path, Samples]:
    """The path of each image, and where its chains start.

    Raises:
        ValueError: If there is no such start for this model.
    """
    if start not in STARTS:
        raise ValueError(f"chains can't start from '{start}'; choose from {', '.join(STARTS)}")
    if start == "posterior" and not model.posterior.log_prob_anywhere:
        raise ValueError("the posterior declares log_prob_anywhere = False; let the chains start from the prior")
    parameters = apply(model, params, "encode", x, label)

    def ends(z: Samples) -> Ends:
        log_likelihood, log_prior = apply(model, params, "log_joint", x, z, label)
        log_start = log_prior if start == "prior" else apply(model, params, "log_posterior", parameters, z)
        return Ends(log_start, log_likelihood + log_prior)

    draws = normal_per_image(jax.random.fold_in(key, 0), image_ids, jnp.arange(_DRAWS_FOR_SCALES), model.noise_size)
    from_posterior, _ = apply(model, params, "transform", parameters, draws)
    target_scale = jnp.maximum(jnp.std(from_posterior, axis=0), _SMALLEST_SCALE)
    if start == "posterior":
        noise = normal_per_image(jax.random.fold_in(key, 1), image_ids, jnp.arange(num_chains), model.noise_size)
        z, _ = apply(model, params, "transform", parameters, noise)
        return Path(ends, target_scale, target_scale), z

    def prior_of(image_id: Count) -> Float[Array, "k d"]:
        return apply(
            model, params, "sample_prior", jax.random.fold_in(jax.random.fold_in(key, 2), image_id), num_chains
        )

    z = jnp.swapaxes(jax.vmap(prior_of)(image_ids), 0, 1)
    typical = apply(model, params, "sample_prior", jax.random.fold_in(key, 3), 4 * _DRAWS_FOR_SCALES)
    start_scale = jnp.maximum(jnp.std(typical, axis=0), _SMALLEST_SCALE)
    return Path(ends, jnp.broadcast_to(start_scale, target_scale.shape), target_scale), z


def transition_noise(
    key: RandomKey, image_ids: ImageIds, num_chains: int, latents: int
) -> Callable[[Count], Float[Array, "k b d1"]]:
    """Noise of one transition: a momentum, and one number that decides whether it is accepted."""
    of_transitions = jax.random.fold_in(key, 4)

    def noise_of(index: Count) -> Float[Array, "k b d1"]:
        return normal_per_image(
            jax.random.fold_in(of_transitions, index), image_ids, jnp.arange(num_chains), latents + 1
        )

    return noise_of


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
