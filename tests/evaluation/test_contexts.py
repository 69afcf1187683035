"""Models that are told numbers: log p(x|c) against the exact density where everything is linear and Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from linear_gaussian import LinearGaussian

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.evaluation import make_importance_estimate
from vae_jax.models import Batch, init_variables

SHAPE = (2, 3, 1)


def test_log_likelihood_is_that_of_the_context() -> None:
    """x = W z + V c + b + noise with z = M c + m + a standard normal, and q(z|x, c) exact: one sample tells all."""
    truth, rng = LinearGaussian.draw(SHAPE, 2), np.random.default_rng(3)
    of_image, of_latents, middle = rng.normal(size=(6, 3)), rng.normal(size=(2, 3)), rng.normal(size=2)
    config = ModelConfig(
        network="mlp(hidden=())",
        likelihood="gaussian(learned=True)",
        latents=2,
        posterior="full_gaussian",
        prior="conditional_gaussian(hidden=())",
        conditional=True,
    )
    model = build_model(config, SHAPE, context_size=3)
    # E[z|x, c] = mu + A (x - W mu - V c - b) with mu = M c + m.
    rest = np.eye(2) - truth.encoder @ truth.weights
    told = rest @ of_latents - truth.encoder @ of_image
    tree = truth.exact_variables()["params"] | {
        "prior": {"given": {"mean": {"kernel": of_latents.T, "bias": middle}, "logvar": {"kernel": 0.0, "bias": 0.0}}},
        "decoder": {"Dense_0": {"kernel": np.concatenate([truth.weights, of_image], axis=1).T, "bias": truth.bias}},
    }
    mean = {
        "kernel": np.concatenate([truth.encoder, told], axis=1).T,
        "bias": rest @ middle - truth.encoder @ truth.bias,
    }
    tree["posterior"] = dict(tree["posterior"], mean=mean)
    for name in ("log_diagonal", "below"):
        tree["posterior"][name] = dict(tree["posterior"][name], kernel=0.0)
    fresh = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), SHAPE))["params"]
    params = jax.tree.map(lambda old, new: jnp.broadcast_to(jnp.asarray(new, jnp.float32), old.shape), fresh, tree)
    x, context = rng.normal(size=(5, *SHAPE)), rng.normal(size=(5, 3))
    batch = Batch(jnp.asarray(x, jnp.float32), context=jnp.asarray(context, jnp.float32))
    function = make_importance_estimate(model, 3, 3)
    found = function({"params": params}, batch, jnp.arange(5), jax.random.key(0))
    centres = truth.bias + context @ of_image.T + (context @ of_latents.T + middle) @ truth.weights.T
    noise = scipy.stats.multivariate_normal(np.zeros(6), truth.weights @ truth.weights.T + truth.variance * np.eye(6))
    np.testing.assert_allclose(found.log_likelihood, noise.logpdf(x.reshape(5, 6) - centres), rtol=1e-4)
    np.testing.assert_allclose(found.effective_sample_size, 3.0, rtol=1e-4)
