"""Mean squared error plus a weighted KL divergence, and the Gaussian likelihood that it is.

PyTorch-VAE minimizes, for images of D pixel values,

    loss = mean over images and pixel values of (x - mean)^2 + w * mean over images of KL.

For `sigma^2 = w D / 2` that is, image by image, `w (-elbo) - w D/2 log(2 pi sigma^2)` with the ELBO of a Gaussian
likelihood of standard deviation sigma: the same optimum, on another scale. A weight is thus no choice of beta but
of a variance, and the mean over pixels makes a small one large: w = 0.00025 at 3×64×64 is sigma = 1.24, more than
what separates black from white.
"""

import math

from jaxtyping import Array, Float

from vae_jax.numerics import LOG_2PI


def mse_equivalent_stddev(kl_weight: float, num_dims: int) -> float:
    """Standard deviation of the Gaussian likelihood under which the loss is an ELBO: `sqrt(w D / 2)`.

    Args:
        kl_weight: w, positive; PyTorch-VAE's `M_N`.
        num_dims: D, pixel values per image.

    Returns:
        Standard deviation in the unit of the pixels.

    Raises:
        ValueError: If the weight isn't positive.

    >>> round(mse_equivalent_stddev(0.00025, 3 * 64 * 64), 2)
    1.24
    """
    if not kl_weight > 0.0:
        raise ValueError(f"the KL weight is {kl_weight} but must be positive: without it the loss is no ELBO")
    return math.sqrt(0.5 * kl_weight * num_dims)


def mse_loss_from_elbo(elbo: Float[Array, "*batch"], kl_weight: float, num_dims: int) -> Float[Array, "*batch"]:
    """PyTorch-VAE's loss from the ELBO with the equivalent Gaussian: `-w elbo - w D/2 log(2 pi sigma^2)`.

    Args:
        elbo: Nats per image, with `sigma = mse_equivalent_stddev(kl_weight, num_dims)`.
        kl_weight: w.
        num_dims: D.

    Returns:
        Each image's loss; PyTorch-VAE's is their mean.

    Source:
        `VanillaVAE.loss_function` of github.com/AntixK/PyTorch-VAE.
    """
    log_variance = 2.0 * math.log(mse_equivalent_stddev(kl_weight, num_dims))
    return -kl_weight * (elbo + 0.5 * num_dims * (LOG_2PI + log_variance))
