"""`vae_jax.load`: a run or an exported folder, as what it says it is or not at all."""

import csv
import hashlib
import inspect
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from on_disk import HARMS, cut_off

import vae_jax
from vae_jax.cli import main
from vae_jax.errors import UserError

pytestmark = pytest.mark.long

TINY = [
    "--config.model.network.hidden=(8,)",
    "--config.model.latents=2",
    "--config.train.batch_size=16",
    "--config.train.report=False",
]
STEPS = ["--config.train.num_steps=4", "--config.train.checkpoint_every=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run on images that are gone, and its last step exported."""
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 6, 5), np.uint8)
    np.savez(place / "others.npz", images=images[40:])
    np.savez(place / "images.npz", images=images[:40])
    source = ["--config.data.source=npz", f"--config.data.path={place / 'images.npz'}"]
    main([f"--workdir={place / 'run'}", *TINY, *STEPS, *source])
    (place / "images.npz").unlink()
    main(["export", f"--workdir={place / 'run'}", f"--output={place / 'exported'}"])
    return place


@pytest.fixture
def others(place: pathlib.Path) -> np.ndarray:
    return np.load(place / "others.npz")["images"]


@pytest.fixture
def exported(place: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy that a test may harm."""
    return pathlib.Path(shutil.copytree(place / "exported", tmp_path / "exported"))


def refusal(path: pathlib.Path | str, **arguments) -> str:
    with pytest.raises(UserError) as caught:
        vae_jax.load(path, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_run_and_export_say_the_same(place: pathlib.Path, others: np.ndarray) -> None:
    run, exported = vae_jax.load(place / "run"), vae_jax.load(str(place / "exported"))
    assert (run.step, exported.step) == (4, 4)
    assert run.kind == exported.kind and exported.kind.image_shape == (6, 5, 1)
    key = jax.random.key(3)
    for function in (
        lambda model: model.encode(others),
        lambda model: model.posterior(others)["logvar"],
        lambda model: model.reconstruct(others),
        lambda model: model.decode(np.eye(2)),
        lambda model: model.sample(key, 5),
        lambda model: model.log_likelihood(others, 10),
    ):
        np.testing.assert_array_equal(function(run), function(exported))


def test_it_says_what_the_verbs_say(place: pathlib.Path, others: np.ndarray, tmp_path: pathlib.Path) -> None:
    given = [f"--workdir={place / 'run'}", f"--input={place / 'others.npz'}"]
    main(["encode", *given, f"--output={tmp_path / 'latents.npz'}"])
    main(["score", *given, f"--output={tmp_path / 'scores.csv'}", "--num_samples=20"])
    loaded = vae_jax.load(place / "exported")
    latents = np.load(tmp_path / "latents.npz")
    np.testing.assert_allclose(loaded.encode(others), latents["mean"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loaded.posterior(others)["logvar"], latents["logvar"], rtol=1e-5, atol=1e-6)
    with (tmp_path / "scores.csv").open() as file:
        scores = {int(row["name"]): float(row["log_likelihood"]) for row in csv.DictReader(file)}
    expected = [scores[number] for number in range(len(others))]
    np.testing.assert_allclose(loaded.log_likelihood(others, 20), expected, rtol=1e-5)
    estimate = loaded.importance_estimate(others, 20)
    np.testing.assert_allclose(estimate.elbo, estimate.reconstruction - estimate.kl, rtol=1e-5)
    assert loaded.log_likelihood(others).shape == (20,)


def test_floats_are_taken_as_they_are(place: pathlib.Path, others: np.ndarray) -> None:
    loaded = vae_jax.load(place / "exported")
    black = np.where(others > 127, 255, 0).astype(np.uint8)
    # White stays 1 and black 0, whatever is drawn.
    floats = (black / 255)[..., np.newaxis]
    np.testing.assert_array_equal(loaded.encode(black), loaded.encode(floats))
    np.testing.assert_array_equal(loaded.encode(black), loaded.encode(jax.numpy.asarray(floats)))
    np.testing.assert_array_equal(loaded.log_likelihood(black, 5), loaded.log_likelihood(floats, 5))
    grey = loaded.encode(others / 255)
    assert np.max(np.abs(grey - loaded.encode(others))) > 1e-3
    with pytest.raises(UserError, match="binary pixels"):
        loaded.log_likelihood(others / 255, 5)


def test_any_number_of_images(place: pathlib.Path) -> None:
    loaded = vae_jax.load(place / "exported")
    images = np.random.default_rng(0).integers(0, 2, (1203, 6, 5, 1)).astype(np.float32)
    many = loaded.reconstruct(images)
    assert many.shape == (1203, 6, 5, 1) and many.dtype == np.float32
    for part in (slice(0, 1), slice(499, 502), slice(1200, 1203)):
        np.testing.assert_allclose(loaded.reconstruct(images[part]), many[part], rtol=1e-5, atol=1e-6)


def test_samples_are_drawn_from_their_key(place: pathlib.Path) -> None:
    loaded = vae_jax.load(place / "exported")
    samples = loaded.sample(jax.random.key(0), 200)
    assert samples.shape == (200, 6, 5, 1) and set(np.unique(samples)) == {0.0, 1.0}
    assert np.any(samples != loaded.sample(jax.random.key(1), 200))
    # What is drawn from p(x|z) is 1 as often as its mean says, here within five standard errors.
    z = np.random.default_rng(0).normal(size=(2000, 2))
    np.testing.assert_allclose(samples.mean(), loaded.decode(z).mean(), atol=5 * 0.5 / np.sqrt(200 * 30))


def test_checkpoint_of_a_run(place: pathlib.Path) -> None:
    assert vae_jax.load(place / "run", checkpoint=2).step == 2
    assert vae_jax.load(place / "run", checkpoint="best").step in (2, 4)
    assert "'3'" in refusal(place / "run", checkpoint=3)
    assert "replica 1" in refusal(place / "run", replica=1)
    assert "leave checkpoint" in refusal(place / "exported", checkpoint=2)


def test_conditional_model_wants_labels(tmp_path: pathlib.Path) -> None:
    conditional = ["--config.model.conditional=True", "--config.train.num_steps=1"]
    main([f"--workdir={tmp_path / 'run'}", *TINY, *conditional])
    main(["export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"])
    loaded = vae_jax.load(tmp_path / "out")
    images = vae_jax.load_digits(test_fraction=0.2, seed=0).test_images[:6]
    label = np.arange(6)
    assert loaded.encode(images, label).shape == (6, 2)
    assert np.any(loaded.encode(images, label) != loaded.encode(images, label[::-1]))
    assert loaded.reconstruct(images, label).shape == (6, 8, 8, 1)
    assert loaded.log_likelihood(images, 3, label).shape == (6,)
    assert loaded.sample(jax.random.key(0), 11).shape == (11, 8, 8, 1)
    for wrong in (None, label + 5, label[:5], label / 1.0):
        with pytest.raises(UserError, match="label"):
            loaded.encode(images, wrong)


WRONG_IMAGES = {
    "another size": (np.zeros((3, 5, 6), np.uint8), "shape (3, 5, 6)"),
    "one image": (np.zeros((6, 5), np.uint8), "shape (6, 5)"),
    "whole numbers": (np.zeros((3, 6, 5), np.int64), "int64"),
    "floats up to 255": (np.full((3, 6, 5), 255.0), "[0, 1]"),
    "no numbers": (np.full((3, 6, 5), np.nan), "no value at all"),
    "masked": (np.ma.masked_equal(np.zeros((3, 6, 5)), 0), "masked"),
    "text": (np.full((3, 6, 5), "a"), "real numbers"),
}


@pytest.mark.parametrize(("images", "words"), WRONG_IMAGES.values(), ids=WRONG_IMAGES)
def test_wrong_images(images: np.ndarray, words: str, place: pathlib.Path) -> None:
    with pytest.raises(UserError) as caught:
        vae_jax.load(place / "exported").encode(images)
    assert words in str(caught.value)


def test_other_wrong_arguments(place: pathlib.Path, others: np.ndarray) -> None:
    loaded = vae_jax.load(place / "exported")
    for call, words in (
        (lambda: loaded.decode(np.zeros((3, 5))), "[N, 2]"),
        (lambda: loaded.decode(np.full((3, 2), np.inf)), "finite"),
        (lambda: loaded.encode(others, np.zeros(20, int)), "isn't conditional"),
        (lambda: loaded.log_likelihood(others, 0), "num_samples"),
        (lambda: loaded.sample(jax.random.key(0), 0), "num_samples"),
        (lambda: loaded.sample(jax.random.key(0), 10**12), "below 2^31"),
        (lambda: loaded.sample(jax.random.key(0), 2**31 - 1), "of memory"),
        # As without the checks of shapes, which users don't have.
        (lambda: inspect.unwrap(type(loaded).sample)(loaded, jax.random.key(0), 2.5), "num_samples is 2.5 but must be"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert words in str(caught.value)


def test_what_is_no_folder_of_a_model(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    assert "isn't there" in refusal(tmp_path / "nowhere")
    assert "is a file" in refusal(tmp_path / "file")
    assert "holds no run" in refusal(tmp_path / "empty")


FILES = ("config.json", "model.safetensors", "encoder.jaxexport", "decoder.jaxexport", "SHA256SUMS")


# The last byte of the sums is the end of a line, which may be missing.
@pytest.mark.parametrize(
    ("name", "harm"), [(name, harm) for name in FILES for harm in HARMS if (name, harm) != (FILES[-1], cut_off)]
)
def test_file_that_is_damaged(name: str, harm, exported: pathlib.Path) -> None:
    harm(exported / name)
    message = refusal(exported)
    if harm is pathlib.Path.unlink:
        assert name in message and "whole copy" in message
    else:
        assert "is damaged" in message


def rewrite(folder: pathlib.Path, name: str, content: bytes) -> None:
    """Changes a file as somebody would who wants to be believed."""
    (folder / name).write_bytes(content)
    lines = [f"{hashlib.sha256((folder / file).read_bytes()).hexdigest()}  {file}\n" for file in FILES[:-1]]
    (folder / "SHA256SUMS").write_text("".join(lines))


def edit(folder: pathlib.Path, *path: str, value: object) -> None:
    content = json.loads((folder / "config.json").read_text())
    section = content
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    rewrite(folder, "config.json", json.dumps(content).encode())


EDITS = {
    "wider": (("config", "model", "network"), "mlp(hidden=(9,))", "bias is float32[8] there and float32[9] here"),
    "larger images": (("images", "image_shape"), [6, 6, 1], "holds another model"),
    "another likelihood": (
        ("config", "model", "likelihood"),
        "gaussian(learned=True)",
        "likelihood.logvar is absent there",
    ),
    "unknown network": (("config", "model", "network"), "transformer", "model.network"),
    "unknown field": (("config", "model", "depth"), 3, "model.depth"),
    "text for a number": (("config", "model", "latents"), "two", "model.latents"),
    "no images": (("images",), {}, "image_shape"),
    "step of text": (("step",), "last", "step"),
    "other model": (("model_type",), "bert", "'bert'"),
    "later format": (("format",), 2, "format 2"),
}


@pytest.mark.parametrize(("path", "value", "words"), EDITS.values(), ids=EDITS)
def test_config_that_describes_another_model(path, value, words: str, exported: pathlib.Path) -> None:
    edit(exported, *path, value=value)
    assert words in refusal(exported)


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b"\xff\xfe"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_file_that_is_none_of_its_kind(name: str, content: bytes, exported: pathlib.Path) -> None:
    rewrite(exported, name, content)
    assert name in refusal(exported)


LATCHED = """
import pathlib
import flax.linen as nn
from vae_jax.likelihoods import Bernoulli

pathlib.Path(__file__).with_name("was imported").touch()


def likelihood(levels) -> nn.Module:
    return Bernoulli()
"""


@pytest.mark.parametrize("kind", ["exported", "run"])
def test_code_of_others_runs_only_if_allowed(kind: str, place, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"stranger_{kind}"
    (tmp_path / f"{module}.py").write_text(LATCHED)
    monkeypatch.syspath_prepend(tmp_path)
    folder = pathlib.Path(shutil.copytree(place / kind, tmp_path / kind))
    if kind == "exported":
        edit(folder, "config", "model", "likelihood", value=f"{module}:likelihood")
    else:
        config = json.loads((folder / "config.json").read_text())
        config["model"]["likelihood"] = f"{module}:likelihood"
        (folder / "config.json").write_text(json.dumps(config))
    message = refusal(folder)
    assert "model.likelihood" in message and module in message and "allow_custom=True" in message
    assert not (tmp_path / "was imported").exists()
    assert vae_jax.load(folder, allow_custom=True).step == 4
    assert (tmp_path / "was imported").exists()


def test_nothing_is_unpickled(place: pathlib.Path) -> None:
    script = f"""
import sys
import vae_jax, jax, numpy as np
vae_jax.load  # what it needs is imported
found = []
sys.addaudithook(lambda event, arguments: event == "pickle.find_class" and found.append(arguments))
loaded = vae_jax.load({str(place / "exported")!r})
loaded.encode(np.zeros((2, 6, 5), np.uint8))
assert not found, found
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=600)
