"""The radial spectrum where Fourier analysis says what it must be."""

import numpy as np
import pytest
import scipy.ndimage

from vae_jax.evaluation import radial_spectrum


@pytest.mark.parametrize("shape", [(16, 16, 1), (9, 12, 3)])
def test_white_noise_is_flat_at_its_variance(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).normal(scale=0.5, size=(4000, *shape))
    spectrum = radial_spectrum(images)
    np.testing.assert_allclose(spectrum.power, 0.25, rtol=0.05)
    np.testing.assert_allclose(spectrum.high, 0.25, rtol=0.02)


def test_total_power_is_the_variance() -> None:
    image = np.random.default_rng(1).uniform(size=(1, 12, 12, 1))
    power = np.abs(np.fft.fft2(image[0, ..., 0] - image.mean())) ** 2 / 144
    np.testing.assert_allclose(power.mean(), image.var())
    radius = np.hypot(np.fft.fftfreq(12)[:, None], np.fft.fftfreq(12)[None])
    np.testing.assert_allclose(radial_spectrum(image).high, power[radius >= 0.25].mean())


def test_blurring_takes_what_the_transfer_function_says() -> None:
    # A Gaussian of width s multiplies amplitudes by exp(-2 pi^2 s^2 f^2).
    images = np.random.default_rng(0).normal(size=(400, 32, 32, 1))
    blurred = scipy.ndimage.gaussian_filter(images, (0, 1.0, 1.0, 0), mode="wrap", truncate=8)
    before, after = radial_spectrum(images), radial_spectrum(blurred)
    chosen = (before.frequency > 0.05) & (before.frequency < 0.3)
    expected = np.exp(-4 * np.pi**2 * before.frequency**2)
    np.testing.assert_allclose((after.power / before.power)[chosen], expected[chosen], rtol=0.12)
    assert after.high < 0.1 * before.high
