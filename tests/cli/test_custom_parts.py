"""Custom parts with errors: one line with the part, and with file and line of the user's code that failed."""

import pathlib

import pytest

from vae_jax.cli import main

TINY = [*("--config.model.latents=2", "--config.train.num_steps=2", "--config.train.report=False")]
PARTS = """
import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from vae_jax.networks import Network
from vae_jax.posteriors import Posterior


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, context=None):
        return nn.Dense(4)(x.reshape(x.shape[0], -1))


class Decoder(nn.Module):
    shape: tuple

    @nn.compact
    def __call__(self, z):
        return nn.Dense(64)(z).reshape(-1, *self.shape)


class Seven(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.Dense(7)(z)


class Gives(nn.Module):
    value: object

    def __call__(self, x, context=None):
        return self.value


class Lost(nn.Module):
    def __call__(self, x, context=None):
        return {}["lost"]


class Squares(nn.Module):
    base_measure = "binary"
    support = frozenset({"binary"})

    def outputs_per_pixel(self, channels):
        return channels

    def log_prob(self, outputs, x):
        return -((outputs - x) ** 2)

    def mean(self, outputs):
        return outputs


class Unsummed(Squares):
    def sample(self, outputs, key):
        return outputs


class Narrow(Posterior):
    latents: int

    def __call__(self, features):
        return features

    def mean(self, parameters):
        return parameters[:, :1]

    def transform(self, parameters, noise):
        return noise, noise.sum(axis=-1)


def pair(encoder, decoder):
    @dataclasses.dataclass(frozen=True)
    class Pair(Network):
        def encoder(self):
            return encoder(self)

        def decoder(self):
            return decoder(self)

    return Pair


short = pair(lambda _: Encoder(), lambda _: Seven())
number = pair(lambda _: Gives(3), lambda network: Decoder(network.outputs))
lost = pair(lambda _: Lost(), lambda network: Decoder(network.outputs))


def alone(outputs):
    return Encoder()


def fails(outputs, width=3):
    raise RuntimeError("no weights\\nin this folder")


def wants(colour):
    return Encoder()


def two(num_images):
    def objective(model, variables, batch, key, step):
        return jnp.zeros(2), None

    objective.needs = ()
    return objective


def needless():
    return lambda *arguments: None


def source(config):
    return [1, 2]
"""
RAISES = PARTS.splitlines().index('        return {}["lost"]') + 1
WRONG = {
    "decoder of another shape": ("model.network", "short", ["failed"]),
    "encoder that gives a number": ("model.network", "number", ["'model.network' 'wrong_parts:number' failed"]),
    "encoder that raises": ("model.network", "lost", [f"KeyError: 'lost' (wrong_parts.py:{RAISES})"]),
    "encoder without a decoder": ("model.network", "alone", ["Encoder", "latent_shape"]),
    "network that can't be built": ("model.network", "fails", ["RuntimeError: no weights in this folder (wrong_parts"]),
    "network that isn't there": ("model.network", "shrot", ["module 'wrong_parts' has no 'shrot'", "mean 'short'"]),
    "network that wants what there isn't": ("model.network", "wants", ["'colour' has no default", "latents, levels"]),
    "setting that isn't there": ("model.network", "fails(widht=2)", ["no setting 'widht'", "did you mean 'width'"]),
    "setting of another type": ("model.network", "fails(width=two)", ["'width'", "'two'", "a whole number"]),
    "likelihood without a method": ("model.likelihood", "Squares", ["failed"]),
    "likelihood that isn't summed": ("model.likelihood", "Unsummed", ["failed"]),
    "posterior of another size": ("model.posterior", "Narrow", ["posterior_mean", "(2, 1)", "(2, 2)"]),
    "objective that returns no terms": ("objective", "two", ["players"]),
    "objective without its needs": ("objective", "needless", ["needs", "vae_jax.objectives.Objective"]),
    "source without images": ("data.source", "source", ["list", "vae_jax.data.Dataset"]),
}


@pytest.fixture(autouse=True)
def parts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module above, on the path; no test writes anywhere else."""
    (tmp_path / "wrong_parts.py").write_text(PARTS)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem("sys.modules", "wrong_parts", raising=False)


@pytest.mark.parametrize(("field", "name", "words"), WRONG.values(), ids=WRONG)
def test_custom_part_with_an_error(field: str, name: str, words: list[str], refused) -> None:
    message = refused(f"--config.{field}=wrong_parts:{name}", *TINY)
    called = f"wrong_parts:{name.partition('(')[0]}"
    assert [word for word in (field, called, *words) if word not in message] == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nothing_of_that_name", ["No module named 'nothing_of_that_name'", "(breaks.py:2)"]),
        ("from math import nothing", ["cannot import name 'nothing'", "(breaks.py:2)"]),
        ("def f(:", ["SyntaxError", "line 2"]),
        ("raise SystemExit(0)", ["SystemExit", "(breaks.py:2)"]),
    ],
)
def test_import_that_fails_inside_a_module(code: str, words: list[str], refused, tmp_path: pathlib.Path) -> None:
    (tmp_path / "breaks.py").write_text(f"# user code\n{code}\n")
    message = refused("--config.model.network=breaks:network", *TINY)
    assert [word for word in ("'breaks:network'", *words) if word not in message] == []
    assert "PYTHONPATH" not in message


def test_module_that_is_not_there(refused) -> None:
    message = refused("--config.model.network=nowhere.at_all:network", *TINY)
    assert "no module 'nowhere'" in message and "PYTHONPATH" in message


@pytest.mark.parametrize(
    ("field", "wrong", "right"),
    [
        ("model.network.dtype", "float16", "bfloat16"),
        ("model.network.upsampling", "bilinear", "resize"),
        ("data.unreadable", "wrong_parts:short", "skip"),
        ("data.image_fit", "stretch", "crop"),
        ("train.schedule", "step", "cosine"),
    ],
)
def test_custom_parts_are_offered_only_where_they_work(field: str, wrong: str, right: str, refused) -> None:
    source = ["--config.data.source=folder", "--config.data.dir=."] if field == "data.image_fit" else []
    network = ["--config.model.network=conv"] if field == "model.network.upsampling" else []
    message = refused(f"--config.{field}={wrong}", *TINY, *source, *network)
    assert field.split(".")[-1] in message and right in message and "package.module:Name" not in message


@pytest.mark.long
def test_custom_part_trains(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "right.py").write_text(
        f"{PARTS}\n\nTwo = pair(lambda _: Encoder(), lambda network: Decoder(network.outputs))\n"
    )
    main([f"--workdir={tmp_path / 'run'}", "--config.model.network=right:Two", *TINY])
    assert "test ELBO" in capsys.readouterr().out
