"""The model as five pure functions.

>>> import jax, vae_jax
>>> images = vae_jax.load_digits(test_fraction=0.2, seed=0).test_images
>>> x = (images > 8).astype("float32")
>>> model = vae_jax.build_model(vae_jax.ModelConfig(network="mlp(hidden=(64,))", latents=5), image_shape=(8, 8, 1))
>>> variables = vae_jax.init(model, jax.random.key(0), (8, 8, 1))
>>> z = vae_jax.encode(model, variables, x)
>>> vae_jax.decode(model, variables, z).shape
(359, 8, 8, 1)
>>> vae_jax.sample(model, variables, jax.random.key(1), num_samples=3).shape
(3, 8, 8, 1)
>>> terms = vae_jax.elbo(model, variables, x, jax.random.key(2))
>>> bool(abs(terms.elbo - (terms.reconstruction - terms.kl)).max() < 1e-4)
True

Each is differentiable in the variables and goes through `jax.jit`, `jax.grad` and `jax.vmap`.
"""

from typing import Any

from jaxtyping import Array, Float

from vae_jax.keys import Stream, stream_key
from vae_jax.models import Batch, Context, Model, Variables, init_variables
from vae_jax.noise import standard_normal
from vae_jax.objectives import ElboTerms, elbo_terms
from vae_jax.shapes import ImageBatch, RandomKey


def init(model: Model, key: RandomKey, shape: tuple[int, ...]) -> Variables:
    """Fresh variables, `{"params": ...}`, for examples of a shape."""
    return init_variables(model, key, shape)


def encode(model: Model, variables: Variables, x: ImageBatch, context: Context = None) -> Any:
    """Mean of q(z|x) of each example.

    Args:
        model: From `build_model`.
        variables: From `init`, or of a trained model.
        x: Examples, as the likelihood wants them: 0 or 1, or values in [0, 1].
        context: Their classes `[B]` or contexts `[B, C]`, for a conditional model.
    """
    return model.point(variables, model.encode(variables, Batch(x, context=context)))


def decode(model: Model, variables: Variables, z: Any, context: Context = None) -> Float[Array, "b *event"]:
    """Mean of p(x|z): probabilities for binary pixels."""
    return model.decode(variables, z, context).mean()


def sample(
    model: Model, variables: Variables, key: RandomKey, num_samples: int, context: Context = None
) -> Float[Array, "n *event"]:
    """Examples drawn from p(x): z from the prior, then x from p(x|z)."""
    z = model.sample_prior(variables, stream_key(key, Stream.SAMPLES, 0), num_samples, context)
    return model.decode(variables, z, context).sample(stream_key(key, Stream.SAMPLES, 1))


def elbo(
    model: Model, variables: Variables, x: ImageBatch, key: RandomKey, num_samples: int = 1, context: Context = None
) -> ElboTerms:
    """The bound of each example and its terms, in nats; see `vae_jax.objectives.elbo_terms`."""
    noise = standard_normal(key, (num_samples, x.shape[0], model.noise_size))
    return elbo_terms(model.joint(variables, Batch(x, context=context), noise=noise))
