"""`diagnose` end to end on tiny models."""

import pathlib
import sys
import types

import numpy as np
import pytest
from tiny_runs import read_json, train

from vae_jax.cli import main

pytestmark = pytest.mark.long

QUICK = [
    *("--num_images=6", "--num_samples=20", "--optimization_steps=20", "--annealed_images=4", "--annealed_chains=4"),
    *("--temperatures=8", "--leapfrog_steps=3", "--latent_images=60", "--generated_images=30"),
]
MODELS = {
    "iaf": ["--config.model.posterior=iaf(flows=1, hidden=(4,))"],
    "gaussian": ["--config.model.likelihood=gaussian", "--config.data.binarization=none"],
}


@pytest.mark.manual
@pytest.mark.parametrize("name", MODELS)
def test_a_diagnosis_says_what_a_model_can_tell(name: str, tmp_path: pathlib.Path) -> None:
    run = train(tmp_path / "run", *MODELS[name])
    main(["diagnose", f"--workdir={run}", *QUICK])
    found = read_json(run / "diagnosis.json")
    # Of a flow the density at any z isn't known.
    assert found["annealed"]["start"] == ("prior" if name == "iaf" else "posterior")
    assert (found["latents"]["aggregate"] is None) == (name == "iaf")
    assert (run / "images" / "diagnosis_kl.png").exists() == (name != "iaf")
    noise = found["noise"]
    assert (noise["gain"] is None) == (name != "gaussian")
    if name == "gaussian":  # Its standard deviation is far above what is left over.
        assert noise["gain"]["mean"] > 0 and noise["factor"] < 1
        assert noise["stddev_refitted"] == pytest.approx(noise["stddev"] * noise["factor"])


def test_flags_and_own_features_choose_what_is_diagnosed(run: pathlib.Path, monkeypatch, refused) -> None:
    module = types.ModuleType("own")
    module.brightness = lambda images: images.reshape(len(images), -1)[:, :4]
    module.wrong = lambda images: images
    module.nan = lambda images: np.full((len(images), 2), np.nan)
    module.broken = lambda images: 1 / 0
    monkeypatch.setitem(sys.modules, "own", module)
    command = ["diagnose", f"--workdir={run}", *QUICK, "--num_images=3", "--split=train"]
    for features, words in (("wrong", "finite numbers"), ("nan", "finite numbers"), ("broken", "ZeroDivisionError")):
        assert words in refused(*command, f"--features=own:{features}")
    main([*command, "--checkpoint=best", "--features=own:brightness"])
    found = read_json(run / "diagnosis_train.json")
    assert found["split"] == "train" and found["settings"]["num_images"] == 3
    # Training images aren't compared with themselves.
    assert found["distances"]["features"] == "own:brightness" and found["distances"]["training_images"] is None
    assert found["nearest"]["reconstructions_to_training"] is None and found["nearest"]["samples_to_training"] > 0


def test_what_has_no_density_is_not_diagnosed(tmp_path: pathlib.Path, refused) -> None:
    plain = ["--config.model.posterior=point_mass", "--config.objective=autoencoder"]
    run = train(tmp_path / "run", *plain, "--config.train.num_steps=3")
    for verb in ("evaluate", "diagnose"):
        assert "has no density" in refused(verb, f"--workdir={run}")
