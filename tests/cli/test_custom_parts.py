"""Custom parts with errors: one line with the part, and with file and line of the user's code that failed."""

import pathlib

import pytest
from tiny_runs import train

TINY = ["--config.model.latents=2"]
PARTS = """
import dataclasses

import flax.linen as nn

from vae_jax.networks import Network

class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, context=None):
        return nn.Dense(4)(x.reshape(x.shape[0], -1))

class Decoder(nn.Module):
    shape: tuple

    @nn.compact
    def __call__(self, z):
        return nn.Dense(64)(z).reshape(-1, *self.shape)

class Lost(nn.Module):
    def __call__(self, x, context=None):
        return {}["lost"]

def pair(encoder, decoder):
    @dataclasses.dataclass(frozen=True)
    class Pair(Network):
        def encoder(self):
            return encoder(self)

        def decoder(self):
            return decoder(self)

    return Pair

Right = pair(lambda _: Encoder(), lambda network: Decoder(network.outputs))
short = pair(lambda _: Encoder(), lambda _: Encoder())
lost = pair(lambda _: Lost(), lambda network: Decoder(network.outputs))

def fails(outputs, width=3):
    raise RuntimeError("no weights\\nin this folder")

def wants(colour):
    return Encoder()

def needless():
    return lambda *arguments: None

def source(config):
    return [1, 2]
"""
RAISES = PARTS.splitlines().index('        return {}["lost"]') + 1
WRONG = {
    "decoder of another shape": ("model.network", "short", ["failed", "(from what own_parts.py:"]),
    "encoder that raises": ("model.network", "lost", [f"KeyError: 'lost' (own_parts.py:{RAISES})"]),
    "network that can't be built": ("model.network", "fails", ["RuntimeError: no weights in this folder (own_parts"]),
    "network that isn't there": ("model.network", "shrot", ["module 'own_parts' has no 'shrot'", "mean 'short'"]),
    "network that wants what there isn't": ("model.network", "wants", ["'colour' has no default", "latents, levels"]),
    "setting that isn't there": ("model.network", "fails(widht=2)", ["no setting 'widht'", "did you mean 'width'"]),
    "setting of another type": ("model.network", "fails(width=two)", ["'width'", "'two'", "a whole number"]),
    "objective without its needs": ("objective", "needless", ["needs", "vae_jax.objectives.Objective"]),
    "source without images": ("data.source", "source", ["list", "vae_jax.data.Dataset"]),
}


@pytest.fixture(autouse=True)
def parts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module above, on the path."""
    (tmp_path / "own_parts.py").write_text(PARTS)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem("sys.modules", "own_parts", raising=False)


@pytest.mark.parametrize(("field", "name", "words"), WRONG.values(), ids=WRONG)
def test_a_custom_part_with_an_error_is_refused(field: str, name: str, words: list[str], refused) -> None:
    message = refused(f"--config.{field}=own_parts:{name}", *TINY)
    called = f"own_parts:{name.partition('(')[0]}"
    assert [word for word in (field, called, *words) if word not in message] == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nothing_of_that_name", ["No module named 'nothing_of_that_name'", "(breaks.py:2)"]),
        ("def f(:", ["SyntaxError", "line 2"]),
        ("raise SystemExit(0)", ["SystemExit", "(breaks.py:2)"]),
    ],
)
def test_an_import_that_fails_is_told_with_its_line(
    code: str, words: list[str], refused, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "breaks.py").write_text(f"# user code\n{code}\n")
    message = refused("--config.model.network=breaks:network", *TINY)
    assert [word for word in ("'breaks:network'", *words) if word not in message] == []
    assert "PYTHONPATH" not in message


@pytest.mark.long
def test_a_custom_part_trains(tmp_path: pathlib.Path) -> None:
    run = train(tmp_path / "run", "--config.model.network=own_parts:Right")
    assert (run / "checkpoints" / "12").is_dir()
