"""Defines and parses the flags of verbs, and reads the config given by `--config` and its overrides."""

import dataclasses
import pathlib
import re
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import flags
from jaxtyping import Float32
from ml_collections import config_flags

from vae_jax.config import PARTS, Config, flatten, from_mapping, to_config_dict, unknown_field
from vae_jax.errors import COUNTS, UserError
from vae_jax.escaping import counted, one_line
from vae_jax.files import check_output
from vae_jax.settings import closest, read_part, read_setting

Flags = Mapping[str, Any]


def define_run(values: flags.FlagValues) -> None:
    """Defines `--workdir` and the flags that choose a model of that run."""
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    define_choice(values)


def define_choice(values: flags.FlagValues, replica: int | None = 0) -> None:
    """Defines `--checkpoint`, `--replica` and `--allow_custom`, which choose a model of a run."""
    flags.DEFINE_string("checkpoint", "latest", "a step, 'best' or 'latest'", flag_values=values)
    meaning = "number of the model, if the run trained several (num_seeds)"
    every = "; all if not given" if replica is None else ""
    flags.DEFINE_integer("replica", replica, meaning + every, flag_values=values, lower_bound=0)
    meaning = "import custom parts named package.module:Name in the run's config, which runs their code"
    flags.DEFINE_boolean("allow_custom", False, meaning, flag_values=values)


def define_show(values: flags.FlagValues, drawn: str = "samples of p(x|z)") -> None:
    """Defines `--show`, and `--seed`, which `drawn` come from; seeds of JAX have 32 bits."""
    meaning = "the mean of p(x|z) (probabilities) or a sample of it"
    flags.DEFINE_enum("show", "mean", ("mean", "sample"), meaning, flag_values=values)
    meaning = f"what {drawn} are drawn from"
    flags.DEFINE_integer("seed", 0, meaning, flag_values=values, lower_bound=0, upper_bound=2**32 - 1)


def define_told(values: flags.FlagValues, of_class: str, of_context: str) -> None:
    """Defines `--label` and `--context`, what a conditional model is told, with what they are otherwise."""
    flags.DEFINE_integer("label", None, f"class, for a conditional model; {of_class} if not given", flag_values=values)
    define_context(values, of_context)


def define_context(values: flags.FlagValues, otherwise: str) -> None:
    """Defines `--context` alone."""
    meaning = f"numbers, for a conditional model that is told these: 1.5,2; {otherwise} if not given"
    flags.DEFINE_list("context", None, meaning, flag_values=values)


def read_context(values: Flags, names: Sequence[str]) -> Float32[np.ndarray, "1 c"] | None:
    """The numbers that `--context` gives; None without.

    Args:
        values: The flags.
        names: Of the numbers that the model is told; empty if it is told none.

    Raises:
        UserError: If the model needs others than these, or a class.
    """
    if names and values.get("label") is not None:
        raise UserError(f"this model is told numbers, no class; set --context={','.join(names)}, not --label")
    if values["context"] is None:
        return None
    if not names:
        raise UserError("this model is told no numbers; leave --context out, or set --label for a conditional model")
    try:
        numbers = np.array([values["context"]], np.float64)
    except ValueError:
        numbers = np.full(1, np.nan)
    if numbers.shape != (1, len(names)) or not np.all(np.abs(numbers) < np.finfo(np.float32).max):
        raise UserError(f"--context must be {counted(len(names), 'finite number')}, --context={','.join(names)}")
    return numbers.astype(np.float32)


def output_file(values: Flags, default: str | pathlib.Path, *suffixes: str) -> pathlib.Path:
    """The file that `--output` names, or the default; see `check_output`."""
    path = pathlib.Path(values["output"] or default)
    check_output(path, *suffixes)
    return path


def define_section(values: flags.FlagValues, section: type) -> None:
    """Defines a flag for each field of a section of the config that has none yet; by default the run's own value."""
    for field in (field for field in dataclasses.fields(section) if field.name not in values):
        meaning = f"{field.metadata['meaning']}; default: as in the run's config"
        if field.type is int:
            lowest = int(field.metadata["minimum"])
            flags.DEFINE_integer(field.name, None, meaning, flag_values=values, lower_bound=lowest)
        else:
            flags.DEFINE_string(field.name, None, meaning, flag_values=values)


def given_section(values: Flags, section: Any) -> Any:
    """A section of the run's config with the flags that were given."""
    given = {field.name: values[field.name] for field in dataclasses.fields(section)}
    return dataclasses.replace(section, **{name: value for name, value in given.items() if value is not None})


def parse(module: types.ModuleType, arguments: list[str]) -> Flags:
    """Parses the arguments of a verb.

    Args:
        module: The verb; its `define(values, arguments)` defines its flags.
        arguments: What follows the verb.

    Returns:
        The value of each flag by name.

    Raises:
        UserError: For an unknown flag, with the closest known one; for a number that is too large; for a config file
            that fails.
        absl.flags.Error: For a value that can't be parsed.
    """
    values = flags.FlagValues()
    arguments, settings = _settings_of_parts(arguments)
    module.define(values, arguments)
    if settings and "config" not in values:
        raise UserError(f"there is no flag --config.{settings[0][0]}; this verb takes no config")
    try:
        leftover = values(["vae-jax", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        known = ", ".join(f"--{name}" for name in sorted(values) if not name.startswith("config."))
        hint = closest(error.flagname, list(values)) or f"; the flags are {known}"
        raise UserError(f"there is no flag --{error.flagname}{hint}") from error
    except flags.IllegalFlagValueError as error:
        # Python's message about a number isn't for users.
        message = re.sub(r": invalid literal.*", ": not an integer", str(error), flags=re.S)
        message = re.sub(r": could not convert.*", ": not a number", message, flags=re.S)
        raise UserError(one_line(message)) from error
    except (UserError, flags.Error):
        raise
    except Exception as error:
        # A config file is the user's program and can raise anything.
        path = config_file(arguments)
        if path is None:
            raise
        raise UserError(
            f"config file '{path}' can't be used ({type(error).__name__}: {error}); it must define get_config() "
            "like configs/digits.py"
        ) from error
    if len(leftover) > getattr(module, "NUM_NAMES", 0):
        raise UserError(f"'{leftover[-1]}' is not a flag; write flags as --name=value")
    given = {**values.flag_values_dict(), "names": leftover}
    if settings and isinstance(given["config"], ml_collections.ConfigDict):
        for field, name, text in settings:
            _set(given["config"], field, name, read_setting(f"--config.{field}.{name}", text))
    for name, value in given.items():
        # A seed has another limit.
        if type(value) is int and name != "seed" and not -COUNTS < value < COUNTS:
            raise UserError(f"--{name} is {one_line(str(value), 60)} but must be below 2^31")
    return given


def _settings_of_parts(arguments: list[str]) -> tuple[list[str], list[tuple[str, str, str]]]:
    """Takes `--config.model.posterior.flows=8` out: what is left, and (field, setting, text) of each."""
    left, settings, index = [], [], 0
    while index < len(arguments):
        argument = arguments[index]
        name, equals, text = argument.partition("=")
        index += 1
        found = _SETTING.fullmatch(name)
        if found is None:
            left.append(argument)
            continue
        if not equals:
            text = arguments[index] if index < len(arguments) else ""
            index += 1
        settings.append((found[1], found[2], text))
    return left, settings


_SETTING = re.compile(rf"--?config\.({'|'.join(map(re.escape, PARTS))})\.(.*)", re.DOTALL)


def _set(config: Any, field: str, name: str, value: Any) -> None:
    """Changes one setting in the text of a part."""
    *sections, last = field.split(".")
    for section in sections:
        config = config[section]
    part = read_part(field, config[last])
    config[last] = str(part._replace(settings={**part.settings, name: value}))


def define_config(values: flags.FlagValues, arguments: list[str]) -> None:
    """Defines `--config=FILE` and `--config.field=value`; the default is the package's config, for the digits."""
    names = [name for name, _, _ in flatten(Config())]
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if name.startswith("config.") and name.removeprefix("config.") not in names:
            raise unknown_field(name.removeprefix("config."))
    if config_file(arguments) is None:
        config_flags.DEFINE_config_dict(
            "config", to_config_dict(Config()), "settings", flag_values=values, lock_config=True, sys_argv=arguments
        )
    else:
        # ml_collections loads every file into one module; remove what an earlier file defined.
        sys.modules.pop("config_config", None)
        config_flags.DEFINE_config_file(
            "config", None, "file with settings", flag_values=values, lock_config=True, sys_argv=arguments
        )


def read_config(values: Flags) -> Config:
    """The config in parsed flags, checked."""
    config = values["config"]
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"get_config() of the config file returned {config!r}; return a ConfigDict, like configs/digits.py"
        )
    return from_mapping(config.to_dict())


def config_file(arguments: list[str]) -> str | None:
    """The file that `--config` names, or None.

    Raises:
        UserError: If it isn't a file.
    """
    for index, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name == "config":
            path = value if equals else (arguments[index + 1] if index + 1 < len(arguments) else "")
            if not pathlib.Path(path).is_file():
                raise UserError(f"there is no config file '{path}'; name one, e.g. --config=configs/mnist.py")
            return path
    return None


def describe_flags(module: types.ModuleType) -> str:
    """The flags of a verb, and all fields of the config if it takes one; for `--help`."""
    values = flags.FlagValues()
    module.define(values, [])
    lines = ["flags:"]
    for name in sorted(values):
        if not name.startswith("config"):
            default = values[name].default
            shown = "" if default is None else f" (default: {default})"
            lines.append(f"  --{name:<22} {values[name].help}{shown}")
    if "config" in values:
        lines += ["  --config                 file with settings (default: the settings below, for the digits)"]
        lines += ["", "settings, each changed by --config.NAME=VALUE:"]
        lines += [
            f"  {name:<28} {field.metadata['meaning']} (default: {value!r})" for name, value, field in flatten(Config())
        ]
    return "\n".join(lines)


def parse_image_shape(text: str) -> tuple[int, int, int]:
    """Reads `height,width,channels`.

    Raises:
        UserError: For any other text.
    """
    sizes = [int(size) if size.strip().isdecimal() else 0 for size in text.split(",")]
    if len(sizes) != 3 or min(sizes) < 1:
        raise UserError(f"--image_shape is '{text}' but must be height,width,channels, e.g. --image_shape=28,28,1")
    height, width, channels = sizes
    return height, width, channels
