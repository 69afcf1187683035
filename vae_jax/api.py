"""The model as five pure functions.

>>> import jax, vae_jax
>>> images = vae_jax.load_digits(test_fraction=0.2, seed=0).test_images
>>> x = (images > 8).astype("float32")
>>> model = vae_jax.build_model(vae_jax.ModelConfig(hidden=(64,), latents=5), image_shape=(8, 8, 1))
>>> params = vae_jax.init(model, jax.random.key(0), image_shape=(8, 8, 1))
>>> z = vae_jax.encode(model, params, x)
>>> vae_jax.decode(model, params, z).shape
(359, 8, 8, 1)
>>> vae_jax.sample(model, params, jax.random.key(1), num_samples=3).shape
(3, 8, 8, 1)
>>> terms = vae_jax.elbo(model, params, x, jax.random.key(2))
>>> bool(abs(terms.elbo - (terms.reconstruction - terms.kl)).max() < 1e-4)
True

Each is differentiable in the parameters and goes through `jax.jit`, `jax.grad` and `jax.vmap`.
"""

from jaxtyping import Array, Float

from vae_jax.keys import Stream, stream_key
from vae_jax.noise import standard_normal
from vae_jax.objectives import ElboTerms, elbo_terms
from vae_jax.shapes import ImageBatch, Means, RandomKey
from vae_jax.vae import VAE, Label, Params, apply, init_params


def init(model: VAE, key: RandomKey, image_shape: tuple[int, int, int]) -> Params:
    """Fresh parameters; see `vae_jax.vae.init_params`."""
    return init_params(model, key, image_shape)


def encode(model: VAE, params: Params, x: ImageBatch, label: Label = None) -> Means:
    """Mean of q(z|x) of each image.

    Args:
        model: From `build_model`.
        params: From `init`, or from a trained run.
        x: Images, as the likelihood wants them: 0 or 1, or values in [0, 1].
        label: Their classes, for a conditional model.
    """
    return apply(model, params, "posterior_mean", x, label)


def decode(model: VAE, params: Params, z: Means, label: Label = None) -> ImageBatch:
    """Mean of p(x|z): probabilities for binary pixels."""
    return apply(model, params, "decode_mean", z, label)


def sample(
    model: VAE, params: Params, key: RandomKey, num_samples: int, label: Label = None
) -> Float[Array, "n h w c"]:
    """Images drawn from p(x): z from the prior, then x from p(x|z)."""
    z = apply(model, params, "sample_prior", stream_key(key, Stream.SAMPLES, 0), num_samples)
    return apply(model, params, "decode_sample", z, stream_key(key, Stream.SAMPLES, 1), label)


def elbo(
    model: VAE, params: Params, x: ImageBatch, key: RandomKey, num_samples: int = 1, label: Label = None
) -> ElboTerms:
    """The bound of each image and its terms, in nats; see `vae_jax.objectives.elbo_terms`."""
    noise = standard_normal(key, (num_samples, x.shape[0], model.noise_size))
    return elbo_terms(apply(model, params, "__call__", x, noise, label))
