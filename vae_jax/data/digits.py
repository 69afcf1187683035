"""The embedded data set: 1,797 handwritten digits of 8 by 8 pixels, from scikit-learn."""

import numpy as np

from vae_jax.data.dataset import Dataset, Split
from vae_jax.data.dividing import fingerprint, split_indices


def load_digits(test_fraction: float, seed: int) -> Dataset:
    """The digits, divided into training and test images.

    Args:
        test_fraction: Share of the images held out for testing.
        seed: Seed of the division.

    Returns:
        Images of 8 x 8 x 1 pixels with values 0 to 16, and their labels.

    Source:
        E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI, 1998.
    """
    import sklearn.datasets  # here, because it takes a second and only this source needs it

    pixels, targets = sklearn.datasets.load_digits(return_X_y=True)
    images, labels = np.asarray(pixels, np.uint8).reshape(-1, 8, 8, 1), np.asarray(targets, np.int32)
    whole, (train, test) = Split(images, labels, 16), split_indices(len(images), test_fraction, seed)
    return Dataset.of_parts("digits", whole.some(train), whole.some(test), fingerprint(images, labels, train, test))
