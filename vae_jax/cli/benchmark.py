"""`benchmark`: how fast the training step of a config is."""

import datetime
import functools
import os

import jax
import numpy as np
from absl import flags

from vae_jax import build
from vae_jax.cli.flags import Flags, define_config, output_file, parse_image_shape, read_config
from vae_jax.cli.memory import check_memory
from vae_jax.cli.terminal import say
from vae_jax.config import Config, flatten
from vae_jax.data import Dataset
from vae_jax.files import write_json
from vae_jax.memory import check_images_fit
from vae_jax.performance.benchmark import benchmark, table
from vae_jax.provenance import command_line, surroundings

_CLASSES = 10


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_config(values, arguments)
    flags.DEFINE_string("output", "benchmark.json", "file for all that was measured", flag_values=values)
    flags.DEFINE_integer("repeats", 5, "how often the step is timed", flag_values=values, lower_bound=1)
    meaning = "steps that are timed at once; 0: as many as take a second, up to the most in one call (train.log_every)"
    flags.DEFINE_integer("steps", 0, meaning, flag_values=values, lower_bound=0)
    meaning = "height,width,channels of random images, which take the place of the data set"
    flags.DEFINE_string("image_shape", None, meaning, flag_values=values)
    flags.DEFINE_integer("num_images", 10_000, "how many random images", flag_values=values, lower_bound=1)


def run(values: Flags) -> None:
    """Runs the verb."""
    config, output = read_config(values), output_file(values, "benchmark.json", ".json")
    data = _data(config, values)
    config = build.resolve(config)
    build.check_fit(config, data)
    # What a cache remembers would not be compiled, and compilation is one of the things that are timed.
    jax.config.update("jax_enable_compilation_cache", False)
    fits = functools.partial(check_memory, config=config)
    result = benchmark(config, data, values["repeats"], values["steps"], fits)
    write_json(
        output,
        {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command_line(),
            "machine": {"cores": os.cpu_count(), **surroundings()},
            "data": {"name": data.name, "num_images": len(data.training.images), "image_shape": list(data.image_shape)},
            "config": {name: value for name, value, _ in flatten(config)},
            **result,
        },
        "choose another --output",
    )
    say(table(result))
    say(f"median (lowest to highest) of {values['repeats']}; all of it is in {output}")


def _data(config: Config, values: Flags) -> Dataset:
    """The data set of the config, or random images in its place."""
    if values["image_shape"] is None:
        return build.build_data(config)
    shape, number = parse_image_shape(values["image_shape"]), values["num_images"]
    check_images_fit(number, shape)
    images = np.random.default_rng(0).integers(0, 256, (number, *shape), dtype=np.uint8)
    labels = np.arange(number, dtype=np.int32) % _CLASSES
    settings = {"binarization": config.data.binarization, "seed": config.data.seed}
    return Dataset("random images", images, images[:1], labels, labels[:1], 255, "", **settings)
