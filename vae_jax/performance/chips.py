"""TPU chips: what Google publishes of them, and the names of slices."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from vae_jax.errors import UserError

_GIB = 2**30
_NAME = re.compile(r"(\w+):(\d+(?:x\d+)*)")


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of TPU.

    Attributes:
        flops_per_second: Peak of bfloat16 products with float32 sums. Float32 products run at the same rate: XLA's
            default on TPUs rounds their operands to bfloat16 and makes one pass.
        memory_bytes: HBM that a program can use, as the compiler of libtpu 0.0.42 says where it refuses one.
        memory_bandwidth: Of HBM, bytes per second.
        dimensions: Axes of a slice.
        most_chips: In the largest slice.
        options: What the compiler has to be told beside the name of the slice.
    """

    flops_per_second: float
    memory_bytes: int
    memory_bandwidth: float
    dimensions: int
    most_chips: int
    options: Mapping[str, Any]


CHIPS = {
    # Google Cloud TPU docs, "TPU v4": 275 TFLOPs, 32 GiB, 1200 GBps.
    # Both cores of a chip are one device, as on Cloud TPU VMs.
    "v4": Chip(275e12, int(30.75 * _GIB), 1200e9, 3, 4096, {"chip_config_name": "megacore"}),
    # Google Cloud TPU docs, "TPU v5e": 197 TFLOPs, 16 GB, 819 GBps.
    "v5e": Chip(197e12, int(15.75 * _GIB), 819e9, 2, 256, {}),
    # Google Cloud TPU docs, "TPU v5p": 459 TFLOPs, 95 GB, 2765 GBps; at most 16x16x24 in
    # one job.
    "v5p": Chip(459e12, int(95.74 * _GIB), 2765e9, 3, 6144, {}),
    # Google Cloud TPU docs, "TPU v6e" (Trillium): 918 TFLOPs, 32 GB, 1600 GBps.
    "v6e": Chip(918e12, int(31.25 * _GIB), 1600e9, 2, 256, {}),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of a TPU pod.

    Attributes:
        name: Such as `v5e:16x16`.
        kind: Of its chips.
        shape: Chips along each axis.
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def chip(self) -> Chip:
        """Its chips."""
        return CHIPS[self.kind]

    @property
    def num_chips(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    @property
    def options(self) -> dict[str, Any]:
        """What `jax.experimental.topologies.get_topology_desc` has to be told beside the name."""
        one = {"chips_per_host_bounds": (1, 1, 1)} if self.num_chips == 1 else {}
        return {**self.chip.options, **one}


def parse_topology(name: str) -> Topology:
    """Reads the name of a slice.

    Args:
        name: Kind of chip and chips along each axis, such as `v5e:16x16` or `v5p:4x4x4`.

    Raises:
        UserError: If there is no such slice, with some that there are.
    """
    match = _NAME.fullmatch(name)
    examples = "e.g. --topology=v5e:2x4, v5e:16x16, v6e:16x16, v5p:4x4x4 or v4:2x2x1"
    if not match:
        raise UserError(f"'{name}' names no TPU slice; give a chip and the chips along each axis, {examples}")
    kind, shape = match[1], tuple(int(size) for size in match[2].split("x"))
    if kind not in CHIPS:
        raise UserError(f"there is no TPU '{kind}' to plan for; choose from {', '.join(CHIPS)}, {examples}")
    topology = Topology(name, kind, shape)
    chip = topology.chip
    if len(shape) != chip.dimensions or not 1 <= topology.num_chips <= chip.most_chips:
        raise UserError(
            f"{kind} has no slice of {match[2]} chips: it takes {chip.dimensions} axes and 1 to {chip.most_chips} "
            f"chips, {examples}"
        )
    return topology
