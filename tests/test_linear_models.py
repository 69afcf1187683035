"""Where everything is known: a linear decoder with Gaussian noise is probabilistic PCA.

For x = W z + b + noise of variance s, p(x) = N(b, W W' + s I), and p(z|x) is Gaussian with precision
P = I + W'W / s, which depends on no image.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.stats
import sklearn.datasets
import sklearn.decomposition
from losses import loss_of

from vae_jax import build
from vae_jax.build import build_model
from vae_jax.config import Config, ModelConfig, TrainConfig
from vae_jax.keys import Stream, stream_key
from vae_jax.models import VAE, Batch, init_variables
from vae_jax.objectives import Elbo
from vae_jax.training import create_state, make_train_step

MAX_VALUE = 16
KEY = jax.random.key(0)


@pytest.mark.long
def test_training_reaches_the_maximum_of_probabilistic_pca() -> None:
    latents, num_steps, shape = 4, 4000, (8, 8, 1)
    pixels = sklearn.datasets.load_digits().images.astype(np.uint8)[..., np.newaxis]
    train, test = pixels[:1400], pixels[1400:]
    config = Config(
        model=ModelConfig(network="mlp(hidden=())", likelihood="gaussian(learned=True, stddev=0.5)", latents=latents),
        objective="elbo",
        train=TrainConfig(optimizer="adam", learning_rate=0.02, schedule="cosine"),
    )
    model = build.build_model(config.model, shape, MAX_VALUE)
    tx = build.build_optimizer(config, model, num_steps)
    train_step = make_train_step(
        build.build_loss(config, model), tx, lambda images, given, key: Batch(images / MAX_VALUE)
    )
    order = np.random.default_rng(0).integers(0, len(train), (num_steps, 200))

    @jax.jit
    def run(images: jax.Array) -> dict:
        state = create_state(init_variables(model, stream_key(KEY, Stream.PARAMETERS), shape), tx, with_average=False)
        return jax.lax.scan(lambda state, rows: (train_step(state, images[rows], KEY)[0], None), state, order)[0].params

    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), run(jnp.asarray(train)))
    decoder = params["decoder"]["Dense_0"]
    covariance = decoder["kernel"].T @ decoder["kernel"] + np.exp(params["likelihood"]["logvar"]) * np.eye(64)

    # scikit-learn's PCA divides variances by n - 1 where the maximum of the likelihood divides by n; both are far
    # less than 0.1 nats apart for 1,400 images.
    flat, held_out = (images.reshape(len(images), -1) / MAX_VALUE for images in (train, test))
    pca = sklearn.decomposition.PCA(latents).fit(flat)
    for images in (flat, held_out):
        ours = scipy.stats.multivariate_normal(decoder["bias"], covariance).logpdf(images).mean()
        assert abs(ours - pca.score(images)) < 0.1
    # One component fewer would be told apart, and so would a model of the wrong scale.
    assert pca.score(held_out) - sklearn.decomposition.PCA(latents - 1).fit(flat).score(held_out) > 1.0


SHAPE = (2, 3, 1)
STDDEV = 0.5
BATCH = 16
# Columns at an acute angle: large values of one latent can be told from large values of the other with difficulty.
WEIGHTS = np.array([[0.9, 0.7], [0.3, 0.5], [-0.5, -0.6], [0.2, 0.4], [0.6, 0.5], [-0.4, 0.1]])
BIAS = np.linspace(-0.2, 0.4, 6)
PRECISION = np.eye(2) + WEIGHTS.T @ WEIGHTS / STDDEV**2
# The smallest KL(q || p(z|x)) of a q with independent components, at the variances 1 / P_jj.
SHORTFALL = 0.5 * (np.sum(np.log(np.diag(PRECISION))) - np.linalg.slogdet(PRECISION)[1])


@functools.cache
def images() -> np.ndarray:
    """Drawn from the model, as flat float64."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(BATCH, 2)) @ WEIGHTS.T + BIAS + STDDEV * rng.normal(size=(BATCH, 6))


def trained_encoder(posterior: str) -> tuple[VAE, dict]:
    """Model and parameters after only q(z|x) was trained; the decoder stays as it is."""
    model = build_model(
        ModelConfig(
            network="mlp(hidden=())",
            latents=2,
            likelihood=f"gaussian(stddev={STDDEV})",
            posterior={"iaf": "iaf(flows=2, hidden=(8,))"}.get(posterior, posterior),
        ),
        SHAPE,
    )
    decoder = {"Dense_0": {"kernel": jnp.asarray(WEIGHTS.T, jnp.float32), "bias": jnp.asarray(BIAS, jnp.float32)}}
    x = jnp.asarray(images().reshape(BATCH, *SHAPE), jnp.float32)
    num_steps = 3000
    # The bound by Monte Carlo: at the exact posterior it is the same whatever z is drawn, and so has no noise.
    objective, tx = Elbo(16, analytic_kl=False), optax.adam(optax.cosine_decay_schedule(0.02, num_steps))

    @jax.jit
    def run() -> dict:
        trainable = {"posterior": init_variables(model, KEY, SHAPE)["params"]["posterior"]}

        def loss(trainable: dict, step: jax.Array) -> jax.Array:
            key = stream_key(KEY, Stream.POSTERIOR_NOISE, step)
            return loss_of(objective, model, {**trainable, "decoder": decoder}, x, key, step)[0]

        def body(carry: tuple, step: jax.Array) -> tuple:
            trainable, opt_state = carry
            updates, opt_state = tx.update(jax.grad(loss)(trainable, step), opt_state)
            return (optax.apply_updates(trainable, updates), opt_state), None

        (trainable, _), _ = jax.lax.scan(body, (trainable, tx.init(trainable)), jnp.arange(num_steps))
        return trainable

    return model, {**run(), "decoder": decoder}


def bound_and_error(model: VAE, params: dict) -> tuple[float, float]:
    """The mean bound of the images from fresh samples, and its standard error."""
    x = jnp.asarray(images().reshape(BATCH, *SHAPE), jnp.float32)
    noise = jax.random.normal(stream_key(KEY, Stream.EVALUATION), (20_000, BATCH, 2))
    weigh = jax.jit(lambda params: model.joint({"params": params}, Batch(x), noise=noise).log_weights)
    weights = np.asarray(weigh(params), np.float64)
    return weights.mean(), weights.mean(axis=1).std() / np.sqrt(len(weights))


def log_likelihood() -> float:
    covariance = WEIGHTS @ WEIGHTS.T + STDDEV**2 * np.eye(6)
    return float(scipy.stats.multivariate_normal(BIAS, covariance).logpdf(images()).mean())


@pytest.mark.long
@pytest.mark.parametrize(
    ("posterior", "shortfall", "tolerance"),
    [
        ("full_gaussian", 0.0, 0.01),
        pytest.param("iaf", 0.0, 0.05, marks=pytest.mark.manual),
        ("diagonal_gaussian", SHORTFALL, 0.01),
    ],
)
def test_how_much_of_the_log_likelihood_a_posterior_reaches(posterior: str, shortfall: float, tolerance: float) -> None:
    bound, error = bound_and_error(*trained_encoder(posterior))
    assert error < 0.003
    assert abs(log_likelihood() - bound - shortfall) < tolerance
    # A bound that is above is none.
    assert bound < log_likelihood() + 4 * error + 1e-4


def test_what_independent_components_cost_could_not_be_overlooked() -> None:
    # Ten times the tolerance at least; and it is the minimum, by an optimizer that knows no formula for it.
    assert SHORTFALL > 0.3

    def divergence(log_variances: np.ndarray) -> float:
        trace = np.sum(np.diag(PRECISION) * np.exp(log_variances))
        return 0.5 * (trace - 2 - np.linalg.slogdet(PRECISION)[1] - np.sum(log_variances))

    found = scipy.optimize.minimize(divergence, np.zeros(2))
    assert found.fun == pytest.approx(SHORTFALL, abs=1e-6)
