"""`diagnose` and long evaluations end to end on tiny models."""

import json
import math
import pathlib
import shutil
import sys
import types

import numpy as np
import pytest
from PIL import Image

from vae_jax.cli import main

pytestmark = pytest.mark.long

TRAINING = [
    *("--config.model.network.hidden=(8,)", "--config.model.latents=3", "--config.train.num_steps=60"),
    "--config.train.report=False",
]
QUICK = [
    *("--num_images=6", "--num_samples=20", "--optimization_steps=20", "--annealed_images=4", "--annealed_chains=4"),
    *("--temperatures=8", "--leapfrog_steps=3", "--latent_images=60", "--generated_images=30"),
]
MODELS = {
    "bernoulli": [],
    "iaf": ["--config.model.posterior=iaf", "--config.model.posterior.hidden=(4,)"],
    "gaussian": ["--config.model.likelihood=gaussian", "--config.data.binarization=none"],
    "conditional": ["--config.model.conditional=True", "--config.model.prior=mixture"],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Runs that are made when they are first asked for."""
    root = tmp_path_factory.mktemp("runs")

    class Runs(dict):
        def __missing__(self, name: str) -> pathlib.Path:
            main([f"--workdir={root / name}", *TRAINING, *MODELS[name]])
            self[name] = root / name
            return self[name]

    return Runs()


@pytest.fixture
def run(trained, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the plain run that a test may add to."""
    return pathlib.Path(shutil.copytree(trained["bernoulli"], tmp_path / "run"))


def read_json(path: pathlib.Path) -> dict:
    # As strict readers take it: no NaN, no Infinity.
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{path} has {name}"))


# Run by hand: pytest -m manual.
LONG = ("conditional", "iaf", "gaussian")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.manual] if name in LONG else []) for name in MODELS]
)
def test_diagnosis_is_written_and_adds_up(
    name: str, trained, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    folder = pathlib.Path(shutil.copytree(trained[name], tmp_path / "run"))
    main(["diagnose", f"--workdir={folder}", *QUICK])
    printed = capsys.readouterr().out
    found = read_json(folder / "diagnosis.json")
    gaps = {key: entry["mean"] for key, entry in found["gaps"].items()}
    assert math.isclose(gaps["total"], gaps["approximation"] + gaps["amortization"], abs_tol=1e-3)
    log_likelihood = found["likelihood"]["log_likelihood"]["mean"]
    assert math.isclose(gaps["approximation"], log_likelihood - gaps["elbo_optimized"], abs_tol=1e-3)
    assert found["likelihood"]["elbo"]["num_images"] == 6 and found["annealed"]["num_images"] == 4
    assert found["annealed"]["start"] == ("prior" if name == "iaf" else "posterior")
    assert found["latents"]["latents"] == 3 and 0 <= found["latents"]["active_units"] <= 3
    assert (found["latents"]["aggregate"] is None) == (name == "iaf")
    assert found["latents"]["label_accuracy"]["nearest_neighbours"] <= 1.0
    noise = found["noise"]
    assert (noise["gain"] is None) == (name != "gaussian")
    if name == "gaussian":  # Its standard deviation is far above what is left over.
        assert noise["gain"]["mean"] > 0 and noise["factor"] < 1
        assert noise["stddev_refitted"] == pytest.approx(noise["stddev"] * noise["factor"])
    for spoken in ("nats lie between the bound and log p(x)", "Annealing gives", "Try first: --config."):
        assert spoken in printed or spoken.startswith("Try")
    for picture in ("diagnosis_spectrum.png", "diagnosis_nearest.png"):
        with Image.open(folder / "images" / picture) as image:
            assert np.asarray(image).std() > 5
    main(["report", f"--workdir={folder}"])
    assert "nats lie between the bound and log p(x)" in (folder / "report.html").read_text().split("<script>")[0]
    assert (folder / "images" / "diagnosis_kl.png").exists() == (name in ("bernoulli", "gaussian"))
    assert math.isclose(gaps["total"], log_likelihood - found["likelihood"]["elbo"]["mean"], abs_tol=1e-3)


@pytest.mark.manual
def test_flags_splits_and_ones_own_features_choose_what_is_diagnosed(
    run: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("my_features")
    module.brightness = lambda images: images.reshape(len(images), -1)[:, :4]
    monkeypatch.setitem(sys.modules, "my_features", module)
    choices = ["--split=validation", "--checkpoint=best", "--num_images=3", "--features=my_features:brightness"]
    main(["diagnose", f"--workdir={run}", *QUICK, *choices])
    found = read_json(run / "diagnosis_validation.json")
    assert found["split"] == "validation" and found["likelihood"]["elbo"]["num_images"] == 3
    assert found["settings"]["temperatures"] == 8 and found["settings"]["num_images"] == 3
    assert found["distances"]["features"] == "my_features:brightness"
    assert (run / "images" / "diagnosis_validation_spectrum.png").exists()
    assert not (run / "images" / "diagnosis_spectrum.png").exists()


@pytest.mark.manual
def test_training_images_are_not_compared_with_themselves(run: pathlib.Path) -> None:
    main(["diagnose", f"--workdir={run}", *QUICK, "--split=train"])
    found = read_json(run / "diagnosis_train.json")
    assert found["distances"]["training_images"] is None and found["latents"]["label_accuracy"] is None
    assert found["nearest"]["reconstructions_to_training"] is None and found["nearest"]["samples_to_training"] > 0


def test_broken_features(run: pathlib.Path, monkeypatch: pytest.MonkeyPatch, refused) -> None:
    module = types.ModuleType("my_features")
    module.wrong = lambda images: images
    module.broken = lambda images: 1 / 0
    module.nan = lambda images: np.full((len(images), 2), np.nan)
    monkeypatch.setitem(sys.modules, "my_features", module)
    assert "a vector of finite numbers" in refused(
        "diagnose", f"--workdir={run}", *QUICK, "--features=my_features:wrong"
    )
    assert "finite numbers" in refused("diagnose", f"--workdir={run}", *QUICK, "--features=my_features:nan")
    assert "ZeroDivisionError" in refused("diagnose", f"--workdir={run}", *QUICK, "--features=my_features:broken")
    assert "random_convolutions" in refused("diagnose", f"--workdir={run}", "--features=inception")


def test_bad_input_of_long_verbs(run: pathlib.Path, tmp_path: pathlib.Path, refused) -> None:
    for verb in ("evaluate", "diagnose"):
        assert "num_samples" in refused(verb, f"--workdir={run}", "--num_samples=0")
        assert "holds no run" in refused(verb, f"--workdir={tmp_path / 'nowhere'}")
        assert "7" in refused(verb, f"--workdir={run}", "--checkpoint=7")
    assert "num_images" in refused("diagnose", f"--workdir={run}", "--num_images=1")
    shutil.rmtree(run / "checkpoints")
    for verb in ("evaluate", "diagnose"):
        assert "no checkpoint" in refused(verb, f"--workdir={run}")


@pytest.mark.manual
def test_set_of_one_image(tmp_path: pathlib.Path, refused) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 5), np.uint8)
    np.savez(tmp_path / "few.npz", train_images=images[:11], test_images=images[11:])
    main(
        [
            *(f"--workdir={tmp_path / 'run'}", *TRAINING, "--config.train.num_steps=3", "--config.train.batch_size=4"),
            *("--config.data.source=npz", f"--config.data.path={tmp_path / 'few.npz'}"),
        ]
    )
    assert "one image" in refused("diagnose", f"--workdir={tmp_path / 'run'}")
    main(["evaluate", f"--workdir={tmp_path / 'run'}", "--num_samples=5"])
    found = read_json(tmp_path / "run" / "evaluation.json")
    assert found["num_images"] == 1 and found["log_likelihood"]["standard_error_images"] is None


def test_autoencoder_has_nothing_to_diagnose(tmp_path: pathlib.Path, refused) -> None:
    plain = ["--config.model.posterior=point_mass", "--config.objective=autoencoder"]
    main([f"--workdir={tmp_path / 'run'}", *TRAINING, "--config.train.num_steps=3", *plain])
    for verb in ("evaluate", "diagnose"):
        assert "has no density" in refused(verb, f"--workdir={tmp_path / 'run'}")
