"""Mean squared error with a weighted KL is a Gaussian ELBO on another scale."""

import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.likelihoods import Gaussian, mse_equivalent_stddev, mse_loss_from_elbo
from vae_jax.posteriors import kl_to_standard_normal


def pytorch_vae_loss(reconstruction, x, mu, log_var, kl_weight: float) -> float:
    """`VanillaVAE.loss_function` of AntixK/PyTorch-VAE, line by line in NumPy."""
    recons_loss = np.mean((reconstruction - x) ** 2)
    kld_loss = np.mean(-0.5 * np.sum(1 + log_var - mu**2 - np.exp(log_var), axis=1), axis=0)
    return recons_loss + kl_weight * kld_loss


@pytest.mark.parametrize(("kl_weight", "shape"), [(0.00025, (16, 16, 3)), (0.01, (8, 8, 1)), (144 / 162770, (5, 7, 3))])
def test_loss_is_that_of_pytorch_vae(kl_weight: float, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    reconstruction, x = rng.normal(size=(6, *shape)), rng.uniform(size=(6, *shape))
    mu, log_var = rng.normal(size=(6, 4)), rng.normal(size=(6, 4))
    num_dims = int(np.prod(shape))
    likelihood = Gaussian(mse_equivalent_stddev(kl_weight, num_dims))
    log_prob = likelihood.apply({}, jnp.asarray(reconstruction), jnp.asarray(x), method="log_prob")
    elbo = log_prob - jnp.sum(kl_to_standard_normal(jnp.asarray(mu), jnp.asarray(log_var)), axis=-1)
    expected = pytorch_vae_loss(reconstruction, x, mu, log_var, kl_weight)
    np.testing.assert_allclose(mse_loss_from_elbo(elbo, kl_weight, num_dims).mean(), expected, rtol=1e-5)


def test_its_default_weight_is_a_standard_deviation_above_one() -> None:
    assert mse_equivalent_stddev(0.00025, 3 * 64 * 64) == pytest.approx(1.2394, abs=1e-4)


@pytest.mark.parametrize("kl_weight", [0.0, -1.0, float("nan")])
def test_a_weight_without_a_likelihood_is_refused(kl_weight: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        mse_equivalent_stddev(kl_weight, 10)
