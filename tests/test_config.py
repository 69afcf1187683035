"""Config fields: names, types and bounds are checked once, and every refusal names the field and the mend."""

import dataclasses
import json
import pathlib
import runpy

import pytest

from vae_jax.build import resolve_parts
from vae_jax.config import Config, TrainConfig, differences, flatten, from_mapping, to_config_dict
from vae_jax.errors import UserError

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


def test_config_comes_back_from_a_config_dict_and_from_json() -> None:
    config = Config(seed=3, train=TrainConfig(batch_size=7, learning_rate=0.5))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, network="mlp(hidden=(5, 6))"))
    assert from_mapping(to_config_dict(config).to_dict()) == config
    assert from_mapping(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_every_field_has_a_meaning_and_a_sound_default() -> None:
    fields = list(flatten(Config()))
    assert len({name for name, _, _ in fields}) == len(fields)
    for name, value, field in fields:
        assert field.metadata["meaning"], name
        section, _, leaf = name.rpartition(".")
        assert from_mapping({section: {leaf: value}} if section else {leaf: value}) == Config()


WRONG = {
    "train.batchsize": (1, "'train.batchsize'; did you mean 'train.batch_size'"),
    "train.lerning_rate": (1, "did you mean 'train.learning_rate'"),
    "trian.num_epochs": (1, "did you mean 'train"),
    "sed": (1, "'sed'; did you mean 'seed'"),
    "model": ("mlp", "'model'"),
    "train.batch_size": ("many", "'train.batch_size' is 'many' but must be"),
    "train.learning_rate": (True, "'train.learning_rate' is True but must be"),
    "train.optimizer": (3, "must be"),
    "model.conditional": (1, "must be"),
    "model.latents": (-1, "at least 1"),
    "train.clip_norm": (float("nan"), "finite"),
    "seed": (2**32, "below"),
    "data.validation_fraction": (1.0, "below 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value_is_refused_with_field_and_mend(name: str) -> None:
    value, words = WRONG[name]
    section, _, leaf = name.rpartition(".")
    with pytest.raises(UserError) as caught:
        from_mapping({section: {leaf: value}} if section else {leaf: value})
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_differences_name_what_may_not_change() -> None:
    old = Config()
    new = from_mapping(
        {
            "model": {"latents": 3},
            "train": {"num_epochs": 7, "num_steps": 5, "log_every": 9, "checkpoint_every": 8, "learning_rate": 0.5},
            "evaluate": {"num_samples": 9},
        }
    )
    assert differences(old, new) == ["model.latents: 10 -> 3", "train.learning_rate: 0.001 -> 0.5"]
    assert differences(new, new) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_file_is_a_sound_config(path: pathlib.Path) -> None:
    resolve_parts(from_mapping(runpy.run_path(str(path))["get_config"]().to_dict()))


def test_mnist_is_the_published_setting() -> None:
    (path,) = (path for path in CONFIGS if path.stem == "mnist")
    config = from_mapping(runpy.run_path(str(path))["get_config"]().to_dict())
    assert (config.model.network, config.model.latents) == ("mlp(hidden=(400,))", 20)
    assert (config.train.optimizer, config.train.learning_rate) == ("adam", 1e-3)
    assert (config.train.batch_size, config.train.num_epochs) == (128, 20)
    assert config.data.binarization == "dynamic"
