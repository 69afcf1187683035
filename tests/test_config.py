"""Config fields: names, types and bounds are checked once, and every refusal names the field and the mend."""

import dataclasses
import json
import pathlib
import runpy

import pytest

from vae_jax.build import resolve_parts
from vae_jax.config import Config, TrainConfig, differences, flatten, from_mapping, to_config_dict, unknown_field
from vae_jax.errors import UserError

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


def refusal(mapping) -> str:
    with pytest.raises(UserError) as caught:
        from_mapping(mapping)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_config_comes_back_from_a_config_dict_and_from_json() -> None:
    config = Config(seed=3, train=TrainConfig(batch_size=7, learning_rate=0.5))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, network="mlp(hidden=(5, 6))"))
    assert from_mapping(to_config_dict(config).to_dict()) == config
    assert from_mapping(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_absent_fields_have_their_defaults() -> None:
    assert from_mapping({}) == Config()
    assert from_mapping({"train": {"batch_size": 5}}).train == TrainConfig(batch_size=5)


def test_every_field_has_a_meaning_and_a_sound_default() -> None:
    fields = list(flatten(Config()))
    assert len({name for name, _, _ in fields}) == len(fields)
    for name, value, field in fields:
        assert field.metadata["meaning"], name
        section, _, leaf = name.rpartition(".")
        assert from_mapping({section: {leaf: value}} if section else {leaf: value}) == Config()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("train.batchsize", "train.batch_size"),
        ("train.lerning_rate", "train.learning_rate"),
        ("trian.num_epochs", "train.num_epochs"),
        ("model.latent", "model.latents"),
        ("sed", "seed"),
    ],
)
def test_unknown_name_brings_the_closest(name: str, meant: str) -> None:
    assert f"no field '{name}'; did you mean '{meant}'" in str(unknown_field(name))


def test_unknown_name_inside_a_mapping_is_refused_with_its_whole_name() -> None:
    assert "'train.batchsize'; did you mean 'train.batch_size'" in refusal({"train": {"batchsize": 1}})
    assert "'sed'; did you mean 'seed'" in refusal({"sed": 1})


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("train", "batch_size", "many"),
        ("train", "batch_size", 2.0),
        ("train", "batch_size", True),
        ("train", "batch_size", None),
        ("train", "learning_rate", "fast"),
        ("train", "learning_rate", True),
        ("train", "optimizer", 3),
        ("model", "conditional", 1),
        ("model", "network", (3,)),
    ],
)
def test_wrong_type_is_refused_with_field_and_value(section: str, field: str, value) -> None:
    message = refusal({section: {field: value}})
    assert f"'{section}.{field}'" in message and repr(value) in message and "must be" in message


def test_whole_number_may_stand_for_a_float() -> None:
    rate = from_mapping({"train": {"learning_rate": 1}}).train.learning_rate
    assert rate == 1.0 and isinstance(rate, float)


@pytest.mark.parametrize(
    ("section", "field", "value", "bound"),
    [
        ("train", "batch_size", 0, "at least 1"),
        ("model", "latents", -1, "at least 1"),
        ("train", "learning_rate", -0.1, "at least 0"),
        ("train", "learning_rate", float("nan"), "finite"),
        ("train", "learning_rate", float("inf"), "finite"),
        ("", "seed", 2**32, "below"),
        ("data", "seed", 2**32, "below"),
        ("data", "validation_fraction", 1.0, "below 1"),
        ("train", "ema_decay", 1.0, "below 1"),
        ("evaluate", "num_samples", 0, "at least 1"),
    ],
)
def test_value_out_of_bounds_is_refused_with_the_bound(section: str, field: str, value, bound: str) -> None:
    message = refusal({section: {field: value}} if section else {field: value})
    assert f"{field}'" in message and bound in message


@pytest.mark.parametrize("value", [3, "mlp", None, [1]])
def test_section_is_no_field(value) -> None:
    assert "'model'" in refusal({"model": value})


@pytest.mark.parametrize("mapping", [None, [], 3])
def test_config_is_a_mapping(mapping) -> None:
    refusal(mapping)


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


def test_configs_are_there() -> None:
    assert {"digits", "mnist", "fashion_mnist"} <= {path.stem for path in CONFIGS}


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
