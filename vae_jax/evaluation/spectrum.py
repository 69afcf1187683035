"""Sharpness in numbers: the radial power spectrum of images."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Half of the highest frequency that pixels can hold along an axis.
HIGH_FREQUENCY = 0.25


class Spectrum(NamedTuple):
    """Mean power of images around their own mean, by spatial frequency.

    Attributes:
        frequency: Middle of each ring, in cycles per pixel.
        power: Mean over the ring, over images and over channels: squared pixel values per frequency. The mean over
            all frequencies is the variance of a pixel within its image.
        high: Mean power of all frequencies from 0.25 cycles per pixel up.
    """

    frequency: Float[np.ndarray, "r"]
    power: Float[np.ndarray, "r"]
    high: float


def radial_spectrum(images: Float[np.ndarray, "n h w c"]) -> Spectrum:
    """The radial power spectrum.

    `P(u) = |sum_x (image(x) - mean) exp(-2 pi i u x)|^2 / (H W)`, averaged over rings of |u| as wide as the
    coarser of the two resolutions, `1 / min(H, W)`.

    Args:
        images: At least one.

    Source:
        The comparison of generated and real images by it: Durall et al., arXiv 2003.01826.
    """
    images = np.asarray(images, np.float64)
    height, width = images.shape[1:3]
    centered = images - images.mean(axis=(1, 2), keepdims=True)
    power = np.mean(np.abs(np.fft.fft2(centered, axes=(1, 2))) ** 2, axis=(0, 3)) / (height * width)
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    ring_width = 1.0 / min(height, width)
    ring = np.round(radius / ring_width).astype(int)
    counts = np.bincount(ring.ravel())
    totals = np.bincount(ring.ravel(), weights=power.ravel())
    present = (counts > 0) & (np.arange(len(counts)) > 0)
    is_high = radius >= HIGH_FREQUENCY
    return Spectrum(
        frequency=np.flatnonzero(present) * ring_width,
        power=totals[present] / counts[present],
        high=float(power[is_high].mean()) if is_high.any() else 0.0,
    )
