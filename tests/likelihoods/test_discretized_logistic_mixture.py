"""Mixture of discretized logistics: against a plain float64 transcription of PixelCNN++, and enumerated."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from vae_jax.likelihoods import DiscretizedLogistic, DiscretizedLogisticMixture


def random_outputs(seed: int, size: int, *shape: int) -> np.ndarray:
    """Decoder outputs with scales small and means wide enough that every part of the formula matters."""
    return np.random.default_rng(seed).normal(0.0, 1.0, (*shape, size))


def pixelcnn_pp(outputs: np.ndarray, x: np.ndarray, levels: int, components: int) -> float:
    """log p of one colour pixel, term by term as in the paper and its code, in the scale [-1, 1].

    The paper's code bounds log-scales by max(., -7); here by the soft bound that the likelihood documents.
    """
    y = 2.0 * x - 1.0
    per_component = outputs[components:].reshape(components, 9)
    weights = np.exp(outputs[:components]) / np.sum(np.exp(outputs[:components]))
    total = 0.0
    for m in range(components):
        means, log_scales, coefficients = np.split(per_component[m], 3)
        coefficients = np.tanh(coefficients)
        log_scales = -7.0 + np.log1p(np.exp(log_scales + 7.0))
        m1 = means[0]
        m2 = means[1] + coefficients[0] * y[0]
        m3 = means[2] + coefficients[1] * y[0] + coefficients[2] * y[1]
        probability = 1.0
        for value, mean, log_scale in zip(y, (m1, m2, m3), log_scales, strict=True):
            inv_stdv = np.exp(-log_scale)
            cdf_plus = scipy.special.expit(inv_stdv * (value - mean + 1.0 / (levels - 1)))
            cdf_min = scipy.special.expit(inv_stdv * (value - mean - 1.0 / (levels - 1)))
            if value < -0.999:
                probability *= cdf_plus
            elif value > 0.999:
                probability *= 1.0 - cdf_min
            else:
                probability *= cdf_plus - cdf_min
        total += weights[m] * probability
    return float(np.log(total))


def enumerated(likelihood: DiscretizedLogisticMixture, outputs: jax.Array, channels: int):
    """Every value that a pixel can take, and its log-probability."""
    levels = likelihood.levels
    values = jnp.asarray(list(itertools.product(range(levels), repeat=channels))) / (levels - 1)
    values = values.reshape(-1, 1, 1, channels)
    return values, jax.jit(likelihood.log_prob)(jnp.broadcast_to(outputs, (len(values), *outputs.shape)), values)


@pytest.mark.parametrize(("levels", "components"), [(256, 10), (256, 1), (17, 3)])
def test_value_is_that_of_pixelcnn_pp(levels: int, components: int) -> None:
    likelihood = DiscretizedLogisticMixture(levels, components)
    outputs = random_outputs(0, likelihood.outputs_per_pixel(3), 2, 3, 4)
    x = np.random.default_rng(1).integers(0, levels, (2, 3, 4, 3)) / (levels - 1)
    x[0, 0, 0], x[0, 0, 1], x[0, 0, 2] = 0.0, 1.0, (0.0, 1.0, 0.0)
    expected = [
        sum(pixelcnn_pp(outputs[b, h, w], x[b, h, w], levels, components) for h in range(3) for w in range(4))
        for b in range(2)
    ]
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            jax.jit(likelihood.log_prob)(jnp.asarray(outputs), jnp.asarray(x)), expected, rtol=1e-10
        )
    np.testing.assert_allclose(jax.jit(likelihood.log_prob)(jnp.asarray(outputs), jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(("levels", "channels"), [(256, 1), (17, 2), (5, 3), (3, 4)])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_probabilities_sum_to_one(levels: int, channels: int, spread: float) -> None:
    likelihood = DiscretizedLogisticMixture(levels, 3)
    outputs = spread * random_outputs(2, likelihood.outputs_per_pixel(channels), 1, 1)
    _, log_probs = enumerated(likelihood, jnp.asarray(outputs), channels)
    np.testing.assert_allclose(jax.nn.logsumexp(log_probs), 0.0, atol=3e-5)


def test_one_component_of_a_grey_image_is_a_discretized_logistic() -> None:
    outputs = jnp.asarray(random_outputs(3, 3, 2, 5, 5))
    x = jnp.asarray(np.random.default_rng(4).integers(0, 256, (2, 5, 5, 1)) / 255)
    mixture, single = DiscretizedLogisticMixture(256, 1), DiscretizedLogistic(256)
    np.testing.assert_allclose(
        jax.jit(mixture.log_prob)(outputs, x), jax.jit(single.log_prob)(outputs[..., 1:], x), rtol=1e-5
    )
    np.testing.assert_allclose(jax.jit(mixture.mean)(outputs), jax.jit(single.mean)(outputs[..., 1:]), rtol=1e-5)


def test_mean_of_grey_pixels_is_exact() -> None:
    likelihood = DiscretizedLogisticMixture(17, 4)
    outputs = jnp.asarray(random_outputs(9, likelihood.outputs_per_pixel(1), 1, 1))
    values, log_probs = enumerated(likelihood, outputs, 1)
    expected = np.sum(np.exp(log_probs) * values[:, 0, 0, 0])
    np.testing.assert_allclose(jax.jit(likelihood.mean)(outputs)[0, 0, 0], expected, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(("levels", "channels"), [(17, 1), (5, 2), (3, 3)])
def test_samples_follow_the_probabilities(levels: int, channels: int) -> None:
    """Chi-square at 1e-4 for each of 3: with fresh seeds, one run in 3300 would fail."""
    likelihood = DiscretizedLogisticMixture(levels, 3)
    outputs = jnp.asarray(random_outputs(10 + channels, likelihood.outputs_per_pixel(channels), 1, 1))
    _, log_probs = enumerated(likelihood, outputs, channels)
    x = jax.jit(likelihood.sample)(jnp.broadcast_to(outputs, (20_000, *outputs.shape)), jax.random.key(channels))
    places = levels ** np.arange(channels)[::-1]
    cells = np.round(np.asarray(x).reshape(-1, channels) * (levels - 1)).astype(int) @ places
    counts = np.bincount(cells, minlength=levels**channels)
    expected = 20_000 * np.exp(np.asarray(log_probs, np.float64))
    assert expected.min() > 5.0
    assert scipy.stats.chisquare(counts, expected * 20_000 / expected.sum()).pvalue > 1e-4
