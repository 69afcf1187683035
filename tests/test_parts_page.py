"""docs/parts.md: its list is that of the classes, and the six parts of its examples are what they say and train."""

import importlib
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax.build import build_loss, build_model, describe_parts
from vae_jax.cli import main
from vae_jax.config import Config, ModelConfig
from vae_jax.models import Batch, init_variables

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "parts.md").read_text()
EXAMPLES = {
    name: (code, command)
    for name, code, command in re.findall(r"```python\n# (\w+)\.py\n(.*?)```\n\n```sh\n(.*?)\n```", PAGE, re.DOTALL)
}
NAMES = ["cauchy", "laplace", "logistic", "skip", "renyi", "centered"]
SHAPE = (2, 3, 1)


@pytest.fixture(autouse=True)
def files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the examples, on the path."""
    for name, (code, _) in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem("sys.modules", name, raising=False)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()


def test_list_of_names_is_that_of_the_classes() -> None:
    assert f"```\n{describe_parts()}\n```" in PAGE


def test_examples_are_short_and_six() -> None:
    assert list(EXAMPLES) == NAMES
    assert all(code.count("\n") <= 40 for code, _ in EXAMPLES.values())


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_example_trains(name: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    flags = shlex.split(EXAMPLES[name][1].partition("main.py")[2])
    small = ["--config.model.latents=2", "--config.train.num_steps=2", "--config.train.report=False"]
    main([f"--workdir={tmp_path / 'run'}", *small, *flags])
    assert "test ELBO" in capsys.readouterr().out
    main(["evaluate", "--allow_custom", f"--workdir={tmp_path / 'run'}", "--num_samples=3", "--num_images=10"])
    assert "log p(x)" in capsys.readouterr().out


def model_and_variables(**parts: str):
    model = build_model(ModelConfig(network="mlp(hidden=(4,))", latents=2, **parts), SHAPE)
    return model, init_variables(model, jax.random.key(0), SHAPE)


def images(count: int = 3) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(size=(count, *SHAPE)), jnp.float32)


def test_likelihood_is_cauchy_and_sums_what_is_observed() -> None:
    model, variables = model_and_variables(likelihood="cauchy:Cauchy(scale=0.2)")
    px = model.decode(variables, jnp.ones((3, 2)))
    each = scipy.stats.cauchy.logpdf(images(), loc=px.mean(), scale=0.2)
    np.testing.assert_allclose(px.log_prob(images()), each.sum(axis=(1, 2, 3)), rtol=1e-5)
    seen = images() > 0.4
    np.testing.assert_allclose(px.log_prob(images(), seen), (each * seen).sum(axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.long
def test_posterior_is_laplace() -> None:
    model, variables = model_and_variables(posterior="laplace:Laplace")
    q = mean, log_scale = model.encode(variables, Batch(images()))
    z, log_q = model.draw(variables, q, jax.random.normal(jax.random.key(1), (4000, 3, 2)))
    each = scipy.stats.laplace.logpdf(z, loc=mean, scale=np.exp(log_scale))
    np.testing.assert_allclose(log_q, each.sum(axis=-1), rtol=1e-4, atol=1e-4)
    for image in range(3):
        found = scipy.stats.kstest((z[:, image, 0] - mean[image, 0]) / np.exp(log_scale[image, 0]), "laplace")
        assert found.pvalue > 1e-3


def test_prior_is_logistic() -> None:
    model, variables = model_and_variables(prior="logistic:Logistic(scale=0.5)")
    z = model.sample_prior(variables, jax.random.key(1), 4000)
    expected = scipy.stats.logistic.logpdf(z, scale=0.5).sum(axis=-1)
    np.testing.assert_allclose(model.log_prior(variables, z), expected, rtol=1e-4, atol=1e-4)
    assert scipy.stats.kstest(np.asarray(z[:, 0]) / 0.5, "logistic").pvalue > 1e-3


@pytest.mark.long
def test_objective_without_alpha_is_the_importance_weighted_bound() -> None:
    model, variables = model_and_variables()
    arguments = variables, Batch((images() > 0.5).astype(jnp.float32)), jax.random.key(1), jnp.int32(0)
    losses = [
        build_loss(Config(objective=text), model)(*arguments).players["model"]
        for text in ("renyi:Renyi(alpha=0.0, num_samples=4)", "iwae(num_samples=4)", "renyi:Renyi(num_samples=4)")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
    # The bound falls as alpha rises.
    assert losses[2] > losses[1]


@pytest.mark.long
def test_model_keeps_the_running_mean_of_its_images() -> None:
    model, variables = model_and_variables(kind="centered:Centered(decay=0.75)")
    x, noise = images(), jnp.zeros((1, 3, 2))
    once = model.joint(variables, Batch(x), noise=noise, train=True).state["mean"]
    np.testing.assert_allclose(once, 0.25 * x.mean(axis=0), rtol=1e-6)
    assert not np.any(model.joint(variables, Batch(x), noise=noise).state["mean"])
