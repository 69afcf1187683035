"""`benchmark`: how fast the training step of a config is, and where its time goes."""

import datetime
import os
import pathlib

import jax
import numpy as np
from absl import flags

from vae_jax import build
from vae_jax.cli.flags import Flags, define_config, parse_image_shape, read_config
from vae_jax.cli.memory import check_memory
from vae_jax.cli.terminal import say
from vae_jax.config import Config, DataConfig, flatten
from vae_jax.data import Dataset
from vae_jax.data.tfds_prepare import MNIST_FAMILY
from vae_jax.errors import UserError
from vae_jax.files import check_output, write_json
from vae_jax.memory import check_images_fit
from vae_jax.performance.benchmark import benchmark, table
from vae_jax.provenance import command_line, surroundings

_NUM_IMAGES, _CLASSES = 10_000, 10
# Of well-known data sets, so that a benchmark needs nothing of them.
_SHAPES = {
    **dict.fromkeys(MNIST_FAMILY, (28, 28, 1)),
    **dict.fromkeys(("cifar10", "cifar100", "svhn_cropped"), (32, 32, 3)),
    "celeb_a": (218, 178, 3),
}


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_config(values, arguments)
    flags.DEFINE_string("output", "benchmark.json", "file for all that was measured", flag_values=values)
    flags.DEFINE_integer("repeats", 5, "how often each part is timed", flag_values=values, lower_bound=1)
    meaning = "steps that are timed at once; 0: as many as take a second, up to the most in one call (train.log_every)"
    flags.DEFINE_integer("steps", 0, meaning, flag_values=values, lower_bound=0)
    meaning = "random images instead of the data set, which needn't be there"
    flags.DEFINE_bool("synthetic", False, meaning, flag_values=values)
    meaning = "height, width and channels of random images; those of the data set, where they are known, if not given"
    flags.DEFINE_string("image_shape", None, meaning, flag_values=values)
    meaning = f"how many random images; {_NUM_IMAGES} if not given"
    flags.DEFINE_integer("num_images", None, meaning, flag_values=values, lower_bound=1)


def run(values: Flags) -> None:
    """Runs the verb."""
    config, output = read_config(values), pathlib.Path(values["output"])
    check_output(output, (".json",))
    data = _data(config, values)
    config = build.resolve(config)
    build.check_fit(config, data)
    # What a cache remembers would not be compiled, and compilation is one of the things that are timed.
    remembers = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        result = benchmark(
            config,
            data,
            values["repeats"],
            values["steps"],
            lambda compiled, mesh: check_memory(compiled, mesh, config),
        )
    finally:
        jax.config.update("jax_enable_compilation_cache", remembers)
    write_json(
        output,
        {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": command_line(),
            "machine": {"cores": os.cpu_count(), **surroundings()},
            "data": {
                "name": data.name,
                "num_images": len(data.training.images),
                "image_shape": list(data.image_shape),
            },
            "config": {name: value for name, value, _ in flatten(config)},
            **result,
        },
        "choose another --output",
    )
    say(table(result))
    say(f"median (lowest to highest) of {values['repeats']}; all of it is in {output}")


def _data(config: Config, values: Flags) -> Dataset:
    """The data set of the config, or random images in its place."""
    if not values["synthetic"]:
        for name in ("image_shape", "num_images"):
            if values[name] is not None:
                raise UserError(f"--{name} is about random images; add --synthetic, or leave it out")
        return build.build_data(config)
    shape = _known_shape(config.data) if values["image_shape"] is None else parse_image_shape(values["image_shape"])
    number = values["num_images"] or _NUM_IMAGES
    check_images_fit(number, shape)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (number, *shape), dtype=np.uint8)
    labels = np.arange(number, dtype=np.int32) % _CLASSES
    settings = {"binarization": config.data.binarization, "seed": config.data.seed}
    return Dataset("random images", images, images[:1], labels, labels[:1], 255, "", **settings)


def _known_shape(config: DataConfig) -> tuple[int, int, int]:
    """What the images of a data set are like, by its name alone."""
    found = (8, 8, 1) if config.source == "digits" else _SHAPES.get(config.name) if config.source == "tfds" else None
    if config.source == "folder" and config.image_size:
        found = (config.image_size, config.image_size, 3)
    if found is None:
        raise UserError(
            "what shape the images of this data set have isn't known without them; add "
            "--image_shape=HEIGHT,WIDTH,CHANNELS"
        )
    return (config.image_size, config.image_size, found[2]) if config.image_size else found
