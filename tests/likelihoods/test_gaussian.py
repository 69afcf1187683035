"""Gaussian likelihoods against scipy and numpyro."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.likelihoods import Gaussian


def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (5, 4, 3, 2)
    return rng.normal(size=shape), rng.normal(size=shape), rng.uniform(size=shape)


@pytest.mark.parametrize("learned", [False, True])
def test_standard_deviation_is_one_and_not_a_variance(learned: bool) -> None:
    mean, _, x = draw()
    member = Gaussian(0.3, learned)
    outputs, images = jnp.asarray(mean, jnp.float32), jnp.asarray(x, jnp.float32)
    variables = member.init(jax.random.key(0), outputs, images, method="log_prob")
    value = member.apply(variables, outputs, images, method="log_prob")
    np.testing.assert_allclose(value, scipy.stats.norm(mean, 0.3).logpdf(x).sum((1, 2, 3)), rtol=1e-5)


def test_learned_variance_is_a_parameter_whose_optimum_is_the_mean_square() -> None:
    mean, _, x = draw()
    member = Gaussian(0.3, learned=True)
    outputs, images = jnp.asarray(mean, jnp.float32), jnp.asarray(x, jnp.float32)

    def slope(logvar: float) -> jax.Array:
        def density(logvar: jax.Array) -> jax.Array:
            return jnp.sum(member.apply({"params": {"logvar": logvar}}, outputs, images, method="log_prob"))

        return jax.grad(density)(jnp.float32(logvar))

    best = np.log(np.mean((mean - x) ** 2))
    assert slope(best - 0.01) > 0 > slope(best + 0.01)


def test_samples_have_mean_and_spread() -> None:
    means = jnp.broadcast_to(jnp.asarray([-1.0, 2.0]).reshape(2, 1, 1), (2500, 2, 1, 1))
    samples = Gaussian(0.3).apply({}, means, jax.random.key(0), method="sample")
    for pixel, mean in enumerate([-1.0, 2.0]):
        # A true sampler fails with probability 0.001; the key is fixed.
        assert scipy.stats.kstest(np.asarray(samples[:, pixel]).ravel(), scipy.stats.norm(mean, 0.3).cdf).pvalue > 0.001
