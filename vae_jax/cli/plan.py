"""`plan`: compiles the training step for a TPU slice, on any machine, and says whether it fits."""

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
from typing import Any

from absl import flags

from vae_jax import build
from vae_jax.cli.flags import Flags, define_config, parse_image_shape, read_config
from vae_jax.cli.terminal import say
from vae_jax.config import Config
from vae_jax.data import tfds
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import UserError
from vae_jax.performance.chips import Topology, parse_topology
from vae_jax.performance.plan import ImageFacts

# So that scripts can go by it; 2 is for what a user has to mend.
_DOES_NOT_FIT_STATUS = 1
_GIB = 2**30
# Keeps libtpu quiet, off a TPU of this machine, and from looking for one in the network.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_COMPILATION_CACHE_DIR": "",
}
# What is about programs for this machine, and TPUs of it.
_NOT_PASSED_ON = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "TPU_", "CLOUD_TPU_")
_CHILD = "from vae_jax.performance.plan import main; main()"


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_config(values, arguments)
    flags.DEFINE_string("topology", None, "TPU slice: v5e:16x16, v6e:2x4, v5p:4x4x4, v4:2x2x1", flag_values=values)
    flags.DEFINE_string("image_shape", None, "height,width,channels, where the data isn't here", flag_values=values)
    meaning = "training images, where the data isn't here"
    flags.DEFINE_integer("num_images", None, meaning, flag_values=values, lower_bound=1)
    meaning = "classes of the data, for a conditional model, where the data isn't here"
    flags.DEFINE_integer("num_classes", 0, meaning, flag_values=values, lower_bound=0)


def run(values: Flags) -> None:
    """Runs the verb."""
    config = read_config(values)
    if not values["topology"]:
        raise UserError("plan needs the TPU slice to plan for; set e.g. --topology=v5e:2x4")
    topology = parse_topology(values["topology"])
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("libtpu, which compiles for TPUs, isn't installed; pip install libtpu")
    plan = _compiled_elsewhere(config, _facts(config, values), topology)
    say("\n".join(_lines(plan, config, topology)))
    if not plan["fits"]:
        sys.exit(_DOES_NOT_FIT_STATUS)


def _compiled_elsewhere(config: Config, facts: ImageFacts, topology: Topology) -> dict[str, Any]:
    """The plan, made by a process with an environment of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}
    # Custom parts are found there as they are here.
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps([dataclasses.asdict(config), facts, topology.name]),
        env=environment | _ENVIRONMENT,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"compiling ended with status {done.returncode}"])[-1]
        raise UserError(f"there is no plan: {reason[:600]}")
    return json.loads(done.stdout.splitlines()[-1])


def _facts(config: Config, values: Flags) -> ImageFacts:
    """Shapes of the data: from flags, or from the data where it's here."""
    if values["image_shape"] is not None and values["num_images"] is not None:
        shape = parse_image_shape(values["image_shape"])
        num_bytes = values["num_images"] * math.prod(shape)
        streamed = config.data.source in ("tfds", "folder") and num_bytes > config.data.resident_mb * 2**20
        return ImageFacts(shape, values["num_images"], values["num_classes"], streamed=streamed)
    instead = "give --image_shape=HEIGHT,WIDTH,CHANNELS and --num_images=N instead"
    if values["image_shape"] is not None or values["num_images"] is not None:
        raise UserError("--image_shape and --num_images replace the data set only together; give both, or none")
    if config.data.source == "tfds" and not tfds.is_prepared(config.data.name, config.data.dir):
        raise UserError(f"{config.data.name} isn't on this machine, and plan downloads nothing; {instead}")
    try:
        data = build.build_data(config)
    except UserError as error:
        raise UserError(f"{error}; or {instead}") from error
    images = data.train_images
    streamed = isinstance(images, StreamedImages)
    return ImageFacts(data.image_shape, len(images), data.kind.context_size, data.max_value, streamed)


def _lines(plan: dict[str, Any], config: Config, topology: Topology) -> list[str]:
    """The plan for people."""
    used, chips, train, chip = plan["used_chips"], plan["num_chips"], config.train, topology.chip
    replicas = f", {config.num_seeds} replicas" if config.num_seeds > 1 else ""
    lines = [f"one training step on {topology.name}: a batch of {train.batch_size} images over {used} chips{replicas}"]
    if used < chips:
        idle, above = f"{chips - used} of {chips} chips", -(-train.batch_size // chips) * chips
        lines.append(f"  {idle} would have nothing to do; --config.train.batch_size={above} uses all")
    memory = plan["memory"]
    needed, available = memory.pop("needed") / _GIB, memory.pop("available") / _GIB
    lines.append(f"  {'fits' if plan['fits'] else 'does not fit'}: {needed:.2f} GiB a chip of {available:.2f} GiB")
    lines += [f"    {name:<16} {_si(number)}B" for name, number in memory.items()]
    if not plan["fits"]:
        lines.append(
            f"    raise --config.train.accumulation (now {train.accumulation}), lower --config.train.batch_size (now "
            f"{train.batch_size}) or --config.num_seeds (now {config.num_seeds}), or take a larger slice"
        )
    if "flops" not in plan:
        return lines
    compute, moving, done = plan["compute_seconds"], plan["memory_seconds"], plan["flops"]
    return [
        *lines,
        f"  a step             {_si(max(compute, moving))}s (estimate, not measured: at published peak rates, without "
        "the exchanges between chips)",
        f"    compute          {_si(compute)}s for {_si(done)}FLOP a chip at {_si(chip.flops_per_second)}FLOP/s "
        "(float32 products are one bfloat16 pass)",
        f"    memory           {_si(moving)}s for {_si(plan['bytes_accessed'])}B a chip at "
        f"{_si(chip.memory_bandwidth)}B/s",
        f"compiled in {plan['compile_seconds']:.0f} s",
    ]


def _si(value: float) -> str:
    """A number with the prefix of its unit."""
    power = min(max(math.floor(math.log10(value) / 3), -4), 5) if value > 0 else 0
    return f"{value / 1000.0**power:.3g} {'pnµm kMGTP'[power + 4].strip()}"
