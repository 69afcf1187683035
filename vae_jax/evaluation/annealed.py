"""log p(x) by annealed importance sampling, and its bracket on simulated data.

Between a start f_0, of which samples are at hand, and the target f_1(z) = p(x, z) lies the path
`f_b = f_0^(1-b) f_1^b`. A chain moves along it by Hamiltonian Monte Carlo and gathers the weight
`w = prod_t [f_1 / f_0](z_(t-1))^(b_t - b_(t-1))`, with `E[w] = p(x)`. Everything that shapes the transitions
(temperatures, step sizes, scales) is fixed before a chain runs: adapting inside it would void this.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.evaluation.annealed_path import begin, transition
from vae_jax.keys import Stream, stream_key
from vae_jax.models import Batch, Context, Model, Variables, flat_latents
from vae_jax.numerics import LogMeanExp
from vae_jax.shapes import Count, ImageBatch, ImageIds, PerImage, RandomKey, Scalar

# What Wu et al. adapt to; the best for Hamiltonian Monte Carlo in many dimensions (Beskos et al. 2013).
_WANTED_ACCEPTANCE = 0.65
_ADAPTATION_RATE = 0.2
_WARMUP_STEPS = 30
_FIRST_STEP_SIZE = 0.5


class Schedule(NamedTuple):
    """What is fixed before the chains run.

    Attributes:
        temperatures: From 0 to 1.
        step_sizes: Of the leapfrog at each temperature but the first, in units of each component's scale.
    """

    temperatures: Float[Array, "t1"]
    step_sizes: Float[Array, "t"]


class AnnealedEstimate(NamedTuple):
    """What N chains say of each image.

    Attributes:
        log_likelihood: Forward, log 1/N sum w, in expectation below log p(x). In reverse, -log 1/N sum 1/w, in
            expectation above it.
        log_likelihood_variance: Its variance over repetitions (delta method); infinite for one chain. Chains in
            reverse share their first z, so that theirs is a lower bound.
        effective_sample_size: Of the weights, from 1 to N.
        acceptance: Share of the proposals that were accepted.
    """

    log_likelihood: PerImage
    log_likelihood_variance: PerImage
    effective_sample_size: PerImage
    acceptance: PerImage


def sigmoid_temperatures(num_temperatures: int, sharpness: float = 4.0) -> Float[Array, "t1"]:
    """T + 1 temperatures from 0 to 1, dense at both ends: `s(r (2t/T - 1))`, moved and scaled to fit.

    Args:
        num_temperatures: T.
        sharpness: r; s is the logistic function.

    Source:
        Grosse et al., arXiv 1511.02543, section 6; Wu et al., arXiv 1611.04273.
    """
    raw = jax.nn.sigmoid(jnp.linspace(-sharpness, sharpness, num_temperatures + 1))
    return (raw - raw[0]) / (raw[-1] - raw[0])


def make_pilot(model: Model, num_chains: int, num_leapfrog: int = 10, start: str = "prior") -> Callable[..., Schedule]:
    """A compiled function that finds step sizes on a few images, along one run of the chains that is thrown away.

    At each temperature the step size moves towards the wanted acceptance, 65%: `log step += rate (accepted - 0.65)`.

    Args:
        model: The model.
        num_chains: Per image.
        num_leapfrog: Leapfrog steps per transition.
        start: `prior` or `posterior`, as in `make_annealed_estimate`.

    Returns:
        `(variables, batch, image_ids, key, temperatures) -> Schedule`.
    """

    @jax.jit
    def pilot(
        variables: Variables, batch: Batch, image_ids: ImageIds, key: RandomKey, temperatures: Float[Array, "t1"]
    ) -> Schedule:
        path, z, noise_of = begin(model, variables, batch, image_ids, key, num_chains, start)

        def at(index: Count, temperature: Scalar, carry: Any) -> Any:
            z, log_step = carry
            z, _, accepted = transition(path, z, temperature, jnp.exp(log_step), num_leapfrog, noise_of(index))
            rise = _ADAPTATION_RATE * (jnp.mean(accepted.astype(jnp.float32)) - _WANTED_ACCEPTANCE)
            return z, log_step + rise

        num_steps = temperatures.shape[0] - 1
        carry = (z, jnp.log(jnp.asarray(_FIRST_STEP_SIZE)))
        carry = jax.lax.fori_loop(0, _WARMUP_STEPS, lambda i, c: at(num_steps + i, temperatures[0], c), carry)

        def sweep(carry: Any, t: Count) -> tuple[Any, Scalar]:
            carry = at(t, temperatures[t], carry)
            return carry, carry[1]

        _, log_steps = jax.lax.scan(sweep, carry, jnp.arange(1, num_steps + 1))
        return Schedule(temperatures, jnp.exp(log_steps))

    return pilot


def make_annealed_estimate(
    model: Model, num_chains: int, num_leapfrog: int = 10, start: str = "prior"
) -> Callable[..., AnnealedEstimate]:
    """A compiled function that estimates log p(x) from below; or from above, for images that were drawn with their z.

    Such a z is an exact sample of p(z|x), from which chains walk the path back, by the same transitions. Then
    `E[1/w] = 1/p(x)`.

    Args:
        model: The model.
        num_chains: Chains per image.
        num_leapfrog: Leapfrog steps per transition.
        start: What the chains start from: the `prior` (what is usual; independent of the encoder), or the `posterior`
            q(z|x), for a model with the trait `density_anywhere` (closer, so that fewer temperatures do).

    Returns:
        `(variables, batch, image_ids, key, schedule[, z]) -> AnnealedEstimate`: from below, or with z of `[B, D]`,
        where all chains of an image begin, from above. The noise is a function of (key, image, chain, temperature)
        alone.

    Source:
        Neal, arXiv physics/9803008; with Hamiltonian Monte Carlo for decoders: Wu et al., arXiv 1611.04273; from above
        (bidirectional Monte Carlo): Grosse et al., arXiv 1511.02543.
    """

    @jax.jit
    def annealed_estimate(
        variables: Variables, batch: Batch, image_ids: ImageIds, key: RandomKey, schedule: Schedule, z: Any = None
    ) -> AnnealedEstimate:
        path, chains, noise_of = begin(model, variables, batch, image_ids, key, num_chains, start)
        temperatures, step_sizes = schedule
        last, climbs = temperatures.shape[0] - 1, z is None
        chains = chains if climbs else jnp.broadcast_to(z, (num_chains, *z.shape))

        def step(index: Count, carry: Any) -> Any:
            z, before, log_weights, accepted = carry
            t = index if climbs else last + 1 - index
            z, ends, moved = transition(path, z, temperatures[t], step_sizes[t - 1], num_leapfrog, noise_of(t))
            difference = before if climbs else ends.difference
            log_weights = log_weights + (temperatures[t] - temperatures[t - 1]) * difference
            return z, ends.difference, log_weights, accepted + moved

        zeros = jnp.zeros(chains.shape[:2], chains.dtype)
        first = (chains, path.ends(chains).difference, zeros, zeros)
        _, _, log_weights, accepted = jax.lax.fori_loop(1, last + 1, step, first)
        weights = LogMeanExp.empty(len(batch.x), zeros.dtype).add(log_weights if climbs else -log_weights)
        found = AnnealedEstimate(**weights.estimates, acceptance=jnp.mean(accepted / last, axis=0))
        return found if climbs else found._replace(log_likelihood=-found.log_likelihood)

    return annealed_estimate


def simulate(
    model: Model, variables: Variables, key: RandomKey, num_images: int, context: Context = None
) -> tuple[ImageBatch, Float[Array, "b d"]]:
    """Images drawn from the model, with the z that each was made from.

    Args:
        model: The model.
        variables: Its variables.
        key: What they are drawn from.
        num_images: How many.
        context: Class or context of each, for a conditional model.

    Returns:
        x from p(x|z), and z from p(z) in one axis.
    """
    z = model.sample_prior(variables, stream_key(key, Stream.SAMPLES, 0), num_images, context)
    x = model.decode(variables, z, context).sample(stream_key(key, Stream.SAMPLES, 1))
    return x, flat_latents(z, model.latents)
