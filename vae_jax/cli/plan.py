"""`plan`: compiles the training step for a TPU slice, on any machine, and says whether it fits."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

from absl import flags

from vae_jax import build
from vae_jax.cli.flags import Flags, define_config, output_file, parse_image_shape, read_config
from vae_jax.cli.terminal import say
from vae_jax.config import Config, from_mapping
from vae_jax.data import tfds
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import UserError
from vae_jax.files import write_json
from vae_jax.performance.chips import Topology, parse_topology
from vae_jax.performance.plan import ImageFacts, plan_step

# So that scripts can go by it; 2 is for what a user has to mend.
_DOES_NOT_FIT_STATUS = 1
_NOTE = "estimate, not measured: at published peak rates, without the exchanges between chips"
_GIB = 2**30
# Keeps libtpu quiet, off a TPU of this machine, and from looking for one in the network.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_COMPILATION_CACHE_DIR": "",
}
# What is about programs for this machine; so is all of TPU_*, but for where libtpu is.
_NOT_PASSED_ON = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
_PASSED_ON = ("TPU_LIBRARY_PATH",)
_CHILD = "import sys; from vae_jax.cli.plan import compile_request; compile_request(sys.argv[1])"


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_config(values, arguments)
    flags.DEFINE_string("topology", None, "TPU slice: v5e:16x16, v6e:2x4, v5p:4x4x4, v4:2x2x1", flag_values=values)
    flags.DEFINE_string("image_shape", None, "height,width,channels, where the data isn't here", flag_values=values)
    meaning = "training images, where the data isn't here"
    flags.DEFINE_integer("num_images", None, meaning, flag_values=values, lower_bound=1)
    meaning = "classes of the data, for a conditional model, where the data isn't here"
    flags.DEFINE_integer("num_classes", 0, meaning, flag_values=values, lower_bound=0)
    meaning = "compile several times faster with less optimization; memory then comes out somewhat too large"
    flags.DEFINE_bool("quick", False, meaning, flag_values=values)
    flags.DEFINE_string("output", None, "JSON file for the plan", flag_values=values)


def run(values: Flags) -> None:
    """Runs the verb."""
    config = read_config(values)
    if not values["topology"]:
        raise UserError("plan needs the TPU slice to plan for; set e.g. --topology=v5e:2x4")
    topology = parse_topology(values["topology"])
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("libtpu, which compiles for TPUs, isn't installed; pip install libtpu")
    output = output_file(values, "", ".json") if values["output"] is not None else None
    plan = _compiled_elsewhere(config, _facts(config, values), topology, values["quick"])
    say("\n".join(_lines(plan, config, topology)))
    if output is not None:
        write_json(output, plan, "choose another --output")
    if not plan["fits"]:
        sys.exit(_DOES_NOT_FIT_STATUS)


def compile_request(request: str) -> None:
    """What the other process does: prints the plan, or why there is none, as JSON on the last line.

    Args:
        request: JSON with the config, the facts of the data and the topology.
    """
    wanted = json.loads(request)
    facts = {**wanted["facts"], "image_shape": tuple(wanted["facts"]["image_shape"])}
    try:
        topology = parse_topology(wanted["topology"])
        plan = plan_step(from_mapping(wanted["config"]), ImageFacts(**facts), topology)
        answer = {"plan": {**plan, "note": _NOTE}}
    except UserError as error:
        answer = {"error": str(error)}
    except Exception as error:
        # libtpu adds a trace of its own below what it says.
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:400]}"
        answer = {"error": f"the step can't be compiled ({reason}); try another --topology or config"}
    print(json.dumps(answer))


def _compiled_elsewhere(config: Config, facts: ImageFacts, topology: Topology, quick: bool) -> dict[str, Any]:
    """The plan as JSON, made by a process with an environment of its own."""
    request = {"config": dataclasses.asdict(config), "facts": dataclasses.asdict(facts), "topology": topology.name}
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or not name.startswith(("TPU_", "CLOUD_TPU_", *_NOT_PASSED_ON))
    }
    environment |= _ENVIRONMENT | ({"JAX_OPTIMIZATION_LEVEL": "O0"} if quick else {})
    # Custom parts are found there as they are here.
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    command = [sys.executable, "-c", _CHILD, json.dumps(request)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:400]
        raise UserError(
            f"compiling ended with status {done.returncode} ({reason}); try another --topology or config"
        ) from error
    if "error" in found:
        raise UserError(found["error"])
    return found["plan"]


def _facts(config: Config, values: Flags) -> ImageFacts:
    """Shapes of the data: from flags, or from the data where it's here."""
    if values["image_shape"] is not None and values["num_images"] is not None:
        shape = parse_image_shape(values["image_shape"])
        num_bytes = values["num_images"] * shape[0] * shape[1] * shape[2]
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
    used, chips, batch_size = plan["used_chips"], plan["num_chips"], plan["batch_size"]
    replicas = f", {plan['num_seeds']} replicas" if plan["num_seeds"] > 1 else ""
    lines = [f"one training step on {plan['topology']}: a batch of {batch_size} images over {used} chips{replicas}"]
    if used < chips:
        idle, above = f"{chips - used} of {chips} chips", -(-batch_size // chips) * chips
        lines.append(f"  {idle} would have nothing to do; --config.train.batch_size={above} uses all")
    lines += _memory_lines(plan, config)
    estimate, chip = plan["estimate"], topology.chip
    if estimate is None:
        return lines
    compute, memory = estimate["compute_seconds"], estimate["memory_seconds"]
    done, moved = f"{_si(estimate['flops'])}FLOP", f"{_si(estimate['bytes_accessed'])}B"
    return [
        *lines,
        f"  a step             {_si(max(compute, memory))}s ({_NOTE})",
        f"    compute          {_si(compute)}s for {done} a chip at {_si(chip.flops_per_second)}FLOP/s "
        "(float32 products are one bfloat16 pass)",
        f"    memory           {_si(memory)}s for {moved} a chip at {_si(chip.memory_bandwidth)}B/s",
        f"compiled in {plan['compile_seconds']:.0f} s",
    ]


def _memory_lines(plan: dict[str, Any], config: Config) -> list[str]:
    memory, train = plan["memory"], config.train
    at_least = "at least " if memory["arguments"] is None else ""
    verdict = "fits" if plan["fits"] else "does not fit"
    lines = [f"  {verdict}: {at_least}{memory['needed'] / _GIB:.2f} GiB a chip of {memory['available'] / _GIB:.2f} GiB"]
    if memory["arguments"] is not None:
        lines += [f"    {name:<16} {_si(memory[name])}B" for name in ("arguments", "temporaries", "outputs", "aliased")]
    if not plan["fits"]:
        lines.append(
            f"    raise --config.train.accumulation (now {train.accumulation}), lower --config.train.batch_size (now "
            f"{train.batch_size}) or --config.num_seeds (now {config.num_seeds}), or take a larger slice"
        )
    return lines


def _si(value: float) -> str:
    """A number with the prefix of its unit."""
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k"), (0, ""), (-3, "m"), (-6, "µ"), (-9, "n")):
        if value >= 10.0**power:
            return f"{value / 10.0**power:.3g} {prefix}"
    return f"{value:.3g} "
