"""A training step compiled ahead of time for a TPU slice, on a machine without TPUs.

Memory, FLOPs and bytes are facts of the compiled program. Its time is an estimate from published peak rates, without
the exchanges between chips.
"""

import json
import math
import re
import sys
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies

from vae_jax import build
from vae_jax.config import Config, from_mapping
from vae_jax.data import Dataset
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import UserError
from vae_jax.memory import planned_memory
from vae_jax.performance.chips import Topology, parse_topology
from vae_jax.sharding import batch_mesh
from vae_jax.training import BatchOrder, ResidentSteps

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# How the compiler says what a step needs that it refuses for its memory.
_REFUSED = re.compile(r"(?:required for [^(]*\(|Used )([\d.]+)([KMGT]?)(?:\) exceeds available HBM| of \S+ hbm)")


class ImageFacts(NamedTuple):
    """What a plan has to know of the data; no pixel is needed.

    Attributes:
        image_shape: Height, width, channels.
        num_images: Training images, before any are set aside for validation.
        context_size: Classes of the labels, or numbers in the contexts; 0 without either.
        max_value: The largest value a pixel can take.
        streamed: Whether images are read from files while the devices work, instead of living on them.
    """

    image_shape: tuple[int, ...]
    num_images: int
    context_size: int = 0
    max_value: int = 255
    streamed: bool = False


def plan_step(config: Config, facts: ImageFacts, topology: Topology) -> dict[str, Any]:
    """Compiles one training step of a run for a slice; needs `libtpu`, and no TPU.

    Args:
        config: The run.
        facts: Its data.
        topology: Where it is to run.

    Returns:
        Numbers by name. `used_chips` is the largest number of chips that divides a batch. `memory` has the bytes on one
        chip, see `planned_memory`, and what is `available` of the HBM to programs. `flops`, `bytes_accessed`,
        `compute_seconds` and `memory_seconds` are those of one chip in one step, at its peak rates, not measured.
        Where the compiler refused the step there are none of these, and of the memory only what is `needed`.

    Raises:
        UserError: If the config can't be trained, the chips can't share a batch, or there is no such slice.
    """
    data = _data_of(config, facts)
    config = build.resolve(config)
    build.check_fit(config, data)
    train, chip = config.train, topology.chip
    mesh = batch_mesh(train.batch_size, _devices(topology))
    model, images = build.build_model_for(config, data), data.training.images
    schedule = build.build_schedule(config, len(images))
    if facts.streamed:
        steps = build.build_steps(config, model, data, schedule, mesh)
    else:
        step = build.build_train_step(config, model, schedule, build.build_preparation(data), len(images))
        order = BatchOrder(build.seeds_of(config), train.batch_size, len(images))
        shape_only = np.broadcast_to(np.zeros((), np.uint8), images.shape)
        labels = data.training.given if model.context_size else None
        steps = ResidentSteps(step, mesh, shape_only, labels, order, longest=1, unroll=True)
    began = time.perf_counter()
    plan: dict[str, Any] = {"topology": topology.name, "num_chips": topology.num_chips, "used_chips": mesh.size}
    try:
        state = jax.eval_shape(lambda: build.build_state(config, model, data.image_shape, schedule.num_steps))
        compiled = steps.compile(state)
    except jax.errors.JaxRuntimeError as error:
        if found := _REFUSED.search(str(error)):
            needed = math.ceil(float(found[1]) * _UNITS[found[2]])
            return {**plan, "memory": {"needed": needed, "available": chip.memory_bytes}, "fits": False}
        if mesh.size < topology.num_chips:
            # v5e and v6e run some programs on all chips of a slice or on none.
            raise UserError(
                f"a batch of {train.batch_size} images uses only {mesh.size} of the {topology.num_chips} chips of "
                f"{topology.name}, which the compiler refuses; set --config.train.batch_size="
                f"{-(-train.batch_size // topology.num_chips) * topology.num_chips}"
            ) from error
        raise
    memory, costs = planned_memory(compiled), compiled.cost_analysis() or {}
    # XLA counts the body of a loop once; nearly all work of a batch in parts is in one.
    flops, num_bytes = (round(train.accumulation * costs[name]) for name in ("flops", "bytes accessed"))
    return {
        **plan,
        "memory": {**memory, "available": chip.memory_bytes},
        "fits": memory["needed"] <= chip.memory_bytes,
        "flops": flops,
        "bytes_accessed": num_bytes,
        "compute_seconds": flops / chip.flops_per_second,
        # As if no byte stayed in the chip's own memory.
        "memory_seconds": num_bytes / chip.memory_bandwidth,
        "compile_seconds": time.perf_counter() - began,
    }


class _NoImages(NamedTuple):
    """Stands for a reader of images where only their shape matters."""

    image_shape: tuple[int, ...]

    def read(self, indices: np.ndarray) -> np.ndarray:
        raise AssertionError("a plan needs no pixels")


def _data_of(config: Config, facts: ImageFacts) -> Dataset:
    """Data of these shapes, without pixels."""
    images = StreamedImages(_NoImages(facts.image_shape), np.arange(facts.num_images))
    labels = np.arange(facts.num_images, dtype=np.int32) % facts.context_size if facts.context_size else None
    none = None if labels is None else labels[:0]
    dataset = Dataset("planned", images, images.take(slice(0)), labels, none, facts.max_value, fingerprint="")
    return build.with_config(dataset, config)


def _devices(topology: Topology) -> list[Any]:
    """Devices to compile for."""
    # Both cores of a v4 are one device, as on Cloud TPU VMs; a host has four chips, unless there is but one.
    options: dict[str, Any] = {"chip_config_name": "megacore"} if topology.kind == "v4" else {}
    if topology.num_chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return topologies.get_topology_desc(topology.name, platform="tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"libtpu knows no slice {topology.name} ({str(error).splitlines()[0]}); choose another --topology"
        ) from error


def main() -> None:
    """Prints the plan for the JSON on the standard input; ends with one line on the standard error if there is none."""
    config, facts, topology = json.load(sys.stdin)
    try:
        plan = plan_step(from_mapping(config), ImageFacts(*facts), parse_topology(topology))
    except (UserError, jax.errors.JaxRuntimeError) as error:
        # libtpu adds a trace of its own below what it says.
        sys.exit(str(error).strip().splitlines()[0])
    print(json.dumps(plan))
