"""A training step compiled ahead of time for a TPU slice, on a machine without TPUs.

Memory, FLOPs and bytes are facts of the compiled program. Its time is an estimate from published peak rates, without
the exchanges between chips.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from vae_jax import build
from vae_jax.config import Config
from vae_jax.data import Dataset
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import UserError
from vae_jax.performance.chips import Chip, Topology
from vae_jax.sharding import batch_mesh
from vae_jax.training import BatchOrder, ResidentSteps, StreamedSteps

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_REFUSED = (
    re.compile(r"required for [^(]*\(([\d.]+)([KMGT]?)\) exceeds available HBM"),
    re.compile(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm"),
)


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What a plan has to know of the data; no pixel is needed.

    Attributes:
        image_shape: Height, width, channels.
        num_images: Training images, before any are set aside for validation.
        num_classes: Classes of the labels, or numbers in the contexts; 0 without either.
        max_value: The largest value a pixel can take.
        streamed: Whether images are read from files while the devices work, instead of living on them.
    """

    image_shape: tuple[int, ...]
    num_images: int
    num_classes: int = 0
    max_value: int = 255
    streamed: bool = False


def plan_step(config: Config, facts: ImageFacts, topology: Topology) -> dict[str, Any]:
    """Compiles one training step of a run for a slice; needs `libtpu`, and no TPU.

    Args:
        config: The run.
        facts: Its data.
        topology: Where it is to run.

    Returns:
        Numbers and texts by name. `used_chips` is the largest number of chips that divides a batch, `batch_size` is
        over all chips, of each replica. `memory` has the bytes on one chip: `arguments` (the state, and images that
        live on the device), `outputs`, what of these takes the place of arguments (`aliased`), `temporaries`, all that
        is `needed` at once, and what is `available` of the HBM to programs. `estimate` is one step of one chip at its
        peak rates, not measured. Where the compiler refused the step it is None, as are the parts of the memory.

    Raises:
        UserError: If the config can't be trained, the chips can't share a batch, or there is no such slice.
    """
    data = _data_of(config, facts)
    config = build.resolve(config)
    build.check_fit(config, data)
    mesh = batch_mesh(config.train.batch_size, _devices(topology))
    steps, state = _one_step(config, facts, data, mesh)
    began = time.perf_counter()
    estimate = None
    try:
        compiled = steps.compile(jax.eval_shape(state))
    except jax.errors.JaxRuntimeError as error:
        needed = _refused_bytes(error)
        if needed is None and mesh.size < topology.num_chips:
            # v5e and v6e run some programs on all chips of a slice or on none.
            batch_size, chips = config.train.batch_size, topology.num_chips
            raise UserError(
                f"a batch of {batch_size} images uses only {mesh.size} of the {chips} chips of {topology.name}, which "
                f"the compiler refuses; set --config.train.batch_size={-(-batch_size // chips) * chips}"
            ) from error
        if needed is None:
            raise
        memory = {**dict.fromkeys(("arguments", "outputs", "aliased", "temporaries")), "needed": needed}
    else:
        memory = _memory(compiled)
        estimate = _estimate(compiled, topology.chip, config.train.accumulation)
    available = topology.chip.memory_bytes
    return {
        "topology": topology.name,
        "num_chips": topology.num_chips,
        "used_chips": mesh.size,
        "batch_size": config.train.batch_size,
        "num_seeds": config.num_seeds,
        "memory": {**memory, "available": available},
        "estimate": estimate,
        "compile_seconds": time.perf_counter() - began,
        "fits": estimate is not None and memory["needed"] <= available,
    }


@dataclasses.dataclass(frozen=True)
class _NoImages:
    """Stands for a reader of images where only their shape matters."""

    image_shape: tuple[int, ...]

    def read(self, indices: np.ndarray) -> np.ndarray:
        raise AssertionError("a plan needs no pixels")


def _data_of(config: Config, facts: ImageFacts) -> Dataset:
    """Data of these shapes, without pixels."""
    images = StreamedImages(_NoImages(facts.image_shape), np.arange(facts.num_images))
    labels = np.zeros(facts.num_images, np.int32) if facts.num_classes else None
    if labels is not None:
        labels[-1] = facts.num_classes - 1
    none = images.take(slice(0))
    no_labels = None if labels is None else labels[:0]
    dataset = Dataset("planned", images, none, labels, no_labels, facts.max_value, fingerprint="")
    return build.with_config(dataset, config)


def _devices(topology: Topology) -> list[Any]:
    """Devices to compile for."""
    try:
        return topologies.get_topology_desc(topology.name, platform="tpu", **topology.options).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"libtpu knows no slice {topology.name} ({_first_line(error)}); choose another --topology"
        ) from error


def _one_step(
    config: Config, facts: ImageFacts, data: Dataset, mesh: Mesh
) -> tuple[ResidentSteps | StreamedSteps, Callable[[], Any]]:
    """One step of the run, as a call of its own, and what makes its first state."""
    model = build.build_model_for(config, data)
    images = data.training.images
    num_images, seeds = len(images), build.seeds_of(config)
    schedule = build.build_schedule(config, num_images)

    def state() -> Any:
        return build.build_state(config, model, facts.image_shape, schedule.num_steps)

    if facts.streamed:
        return build.build_steps(config, model, data, schedule, mesh), state
    step = build.build_train_step(config, model, schedule, build.build_preparation(data), num_images)
    order = BatchOrder(seeds, config.train.batch_size, num_images)
    shape_only = np.broadcast_to(np.zeros((), np.uint8), images.shape)
    labels = data.training.given if model.context_size else None
    return ResidentSteps(step, mesh, shape_only, labels, order, longest=1, unroll=True), state


def _memory(compiled: jax.stages.Compiled) -> dict[str, Any]:
    stats = compiled.memory_analysis()
    assert stats is not None
    fields = {"arguments": "argument", "outputs": "output", "aliased": "alias", "temporaries": "temp"}
    parts = {name: getattr(stats, f"{field}_size_in_bytes") for name, field in fields.items()}
    return {**parts, "needed": sum(parts.values()) - 2 * parts["aliased"]}


def _estimate(compiled: jax.stages.Compiled, chip: Chip, num_parts: int) -> dict[str, Any]:
    costs = compiled.cost_analysis() or {}
    # XLA counts the body of a loop once; nearly all work of a batch in parts is in one.
    flops, num_bytes = (round(num_parts * costs[name]) for name in ("flops", "bytes accessed"))
    return {
        "flops": flops,
        "bytes_accessed": num_bytes,
        "compute_seconds": flops / chip.flops_per_second,
        # As if no byte stayed in the chip's own memory.
        "memory_seconds": num_bytes / chip.memory_bandwidth,
    }


def _refused_bytes(error: Exception) -> int | None:
    """How much memory a step would need that the compiler refused for it; None if it has another reason."""
    for pattern in _REFUSED:
        if found := pattern.search(str(error)):
            return math.ceil(float(found[1]) * _UNITS[found[2]])
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300]
