"""Where everything is known: a linear decoder with Gaussian noise is probabilistic PCA, and training finds it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.stats
import sklearn.datasets
import sklearn.decomposition
from linear_gaussian import LinearGaussian
from losses import loss_of

from vae_jax import build
from vae_jax.config import Config, ModelConfig, TrainConfig
from vae_jax.keys import Stream, stream_key
from vae_jax.models import Batch, init_variables
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


BATCH = 16
# Columns at an acute angle: large values of one latent can be told from large values of the other with difficulty.
WEIGHTS = np.array([[0.9, 0.7], [0.3, 0.5], [-0.5, -0.6], [0.2, 0.4], [0.6, 0.5], [-0.4, 0.1]])
TRUTH = LinearGaussian(WEIGHTS, np.linspace(-0.2, 0.4, 6), 0.25, (2, 3, 1))
# The smallest KL(q || p(z|x)) of a q with independent components.
SHORTFALL = TRUTH.diagonal_gap()


@pytest.mark.long
@pytest.mark.parametrize(
    ("posterior", "shortfall", "tolerance"),
    [("full_gaussian", 0.0, 0.01), ("iaf(flows=2, hidden=(8,))", 0.0, 0.05), ("diagonal_gaussian", SHORTFALL, 0.01)],
)
def test_how_much_of_the_log_likelihood_a_posterior_reaches(posterior: str, shortfall: float, tolerance: float) -> None:
    """Only q(z|x) is trained, for a decoder that is the truth."""
    model, num_steps = TRUTH.vae(posterior), 3000
    images = TRUTH.sample(BATCH)
    x, params = jnp.asarray(images, jnp.float32), TRUTH.variables()["params"]
    fresh = init_variables(model, KEY, TRUTH.shape)["params"]["posterior"]
    # The bound by Monte Carlo: at the exact posterior it is the same whatever z is drawn, and so has no noise.
    objective, tx = Elbo(16, analytic_kl=False), optax.adam(optax.cosine_decay_schedule(0.02, num_steps))

    def loss(posterior: dict, step: jax.Array) -> jax.Array:
        key = stream_key(KEY, Stream.POSTERIOR_NOISE, step)
        return loss_of(objective, model, {**params, "posterior": posterior}, x, key, step)[0]

    def body(carry: tuple, step: jax.Array) -> tuple:
        posterior, opt_state = carry
        updates, opt_state = tx.update(jax.grad(loss)(posterior, step), opt_state)
        return (optax.apply_updates(posterior, updates), opt_state), None

    @jax.jit
    def log_weights() -> jax.Array:
        (trained, _), _ = jax.lax.scan(body, (fresh, tx.init(fresh)), jnp.arange(num_steps))
        noise = jax.random.normal(stream_key(KEY, Stream.EVALUATION), (20_000, BATCH, 2))
        return model.joint({"params": {**params, "posterior": trained}}, Batch(x), noise=noise).log_weights

    weights, exact = np.asarray(log_weights(), np.float64), TRUTH.log_likelihood(images).mean()
    bound, error = weights.mean(), weights.mean(axis=1).std() / np.sqrt(len(weights))
    assert error < 0.003
    assert abs(exact - bound - shortfall) < tolerance
    # A bound that is above is none.
    assert bound < exact + 4 * error + 1e-4


def test_what_independent_components_cost_is_the_minimum_of_their_divergence() -> None:
    # Ten times the tolerance at least; and it is found by an optimizer that knows no formula for it.
    assert SHORTFALL > 0.3
    found = scipy.optimize.minimize(
        lambda log_variances: TRUTH.kl_to_posterior(np.zeros((1, 2)), np.exp(log_variances))[0], np.zeros(2)
    )
    assert found.fun == pytest.approx(SHORTFALL, abs=1e-6)
