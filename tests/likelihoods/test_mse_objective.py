"""What a run with `model.likelihood = mse` minimizes is PyTorch-VAE's loss, number for number."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import build
from vae_jax.config import Config, DataConfig, ModelConfig, ObjectiveConfig, TrainConfig
from vae_jax.data import Dataset
from vae_jax.noise import standard_normal
from vae_jax.vae import init_params

SHAPE = (3, 4, 3)
BATCH = 5
LATENTS = 2
KEY = jax.random.key(1)


def config(kl_weight: float, objective: str = "elbo") -> Config:
    return Config(
        data=DataConfig(binarization="none"),
        model=ModelConfig(hidden=(), latents=LATENTS, likelihood="mse", mse_kl_weight=kl_weight),
        objective=ObjectiveConfig(name=objective, beta=3.0),
        train=TrainConfig(batch_size=BATCH),
    )


def data(num_images: int) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, *SHAPE)).astype(np.uint8)
    return Dataset("colours", pixels, pixels[:2], None, None, 255, "none", binarization="none", validation_fraction=0.2)


def vanilla_vae_loss(recons, input, mu, log_var, M_N: float) -> dict[str, float]:
    """`VanillaVAE.loss_function` of AntixK/PyTorch-VAE, with NumPy for torch."""
    recons_loss = np.mean((recons - input) ** 2)
    kld_loss = np.mean(-0.5 * np.sum(1 + log_var - mu**2 - np.exp(log_var), axis=1), axis=0)
    return {"loss": recons_loss + M_N * kld_loss, "Reconstruction_Loss": recons_loss, "KLD": kld_loss}


def ours_and_theirs(kl_weight: float, objective: str = "elbo"):
    """Loss, terms and gradient of the run's loss, and PyTorch-VAE's of the same noise."""
    run = config(kl_weight, objective)
    model = build.build_model(run.model, SHAPE)
    params = init_params(model, jax.random.key(0), SHAPE)
    x = np.random.default_rng(1).uniform(size=(BATCH, *SHAPE))
    loss_function = build.build_loss(run, model)
    loss = jax.value_and_grad(
        lambda params: loss_function(params, jnp.asarray(x, jnp.float32), KEY, jnp.int32(0)), has_aux=True
    )
    (value, terms), gradient = jax.jit(loss)(params)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    heads, decoder = p["posterior"], p["decoder"]["Dense_0"]
    mu, log_var = (x.reshape(BATCH, -1) @ heads[name]["kernel"] + heads[name]["bias"] for name in ("mean", "logvar"))
    z = mu + np.exp(0.5 * log_var) * np.asarray(standard_normal(KEY, (1, BATCH, LATENTS)))[0]
    recons = (z @ decoder["kernel"] + decoder["bias"]).reshape(x.shape)
    theirs = vanilla_vae_loss(recons, x, mu, log_var, kl_weight)
    by_hand = z.T @ (2 * (recons - x).reshape(BATCH, -1) / x.size)
    return value, terms, gradient, theirs, by_hand


@pytest.mark.parametrize("kl_weight", [0.00025, 0.05])
def test_loss_and_its_gradient_are_those_of_pytorch_vae(kl_weight: float) -> None:
    value, terms, gradient, theirs, by_hand = ours_and_theirs(kl_weight)
    np.testing.assert_allclose(value, theirs["loss"], rtol=1e-4)
    np.testing.assert_allclose(np.mean(terms.kl), theirs["KLD"], rtol=1e-4)
    # The scale is theirs too: a learning rate means the same.
    np.testing.assert_allclose(gradient["decoder"]["Dense_0"]["kernel"], by_hand, rtol=1e-3, atol=1e-6)


def test_what_is_reported_are_the_nats_of_the_gaussian_that_it_is() -> None:
    kl_weight = 0.05
    _, terms, _, theirs, _ = ours_and_theirs(kl_weight)
    variance = kl_weight * 36 / 2
    expected = -36 * theirs["Reconstruction_Loss"] / (2 * variance) - 18 * np.log(2 * np.pi * variance)
    np.testing.assert_allclose(np.mean(terms.reconstruction), expected, rtol=1e-4)
    np.testing.assert_allclose(np.mean(terms.elbo), expected - theirs["KLD"], rtol=1e-4)


def test_beta_multiplies_the_weight() -> None:
    value, _, _, theirs, _ = ours_and_theirs(0.05, "beta")
    np.testing.assert_allclose(value, theirs["loss"] + 2 * 0.05 * theirs["KLD"], rtol=1e-4)


def test_weight_zero_becomes_the_share_of_a_batch_in_the_training_images() -> None:
    # Of 50 images a fifth is set aside: M_N is 5 / 40.
    resolved = build.resolve(config(0.0), data(50))
    assert resolved.model.mse_kl_weight == 0.125
    model = build.build_model_for(resolved, data(50))
    assert model.likelihood.stddev == pytest.approx(np.sqrt(0.125 * 36 / 2))
    # Nothing else is touched, and a weight that was given stays.
    assert dataclasses.replace(resolved, model=config(0.0).model) == config(0.0)
    assert build.resolve(config(0.3), data(50)) == config(0.3)
