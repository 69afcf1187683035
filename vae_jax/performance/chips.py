"""TPU chips: what Google publishes of them, and the names of slices."""

import math
import re
from typing import NamedTuple

from vae_jax.errors import UserError

_GIB = 2**30


class Chip(NamedTuple):
    """One kind of TPU.

    Attributes:
        flops_per_second: Peak of bfloat16 products with float32 sums. Float32 products run at the same rate: XLA's
            default on TPUs rounds their operands to bfloat16 and makes one pass.
        memory_bytes: HBM that a program can use, as the compiler of libtpu 0.0.42 says where it refuses one.
        memory_bandwidth: Of HBM, bytes per second.
        dimensions: Axes of a slice.
        most_chips: In the largest slice.
    """

    flops_per_second: float
    memory_bytes: int
    memory_bandwidth: float
    dimensions: int
    most_chips: int


CHIPS = {
    # Google Cloud TPU docs, "TPU v4": 275 TFLOPs, 32 GiB, 1200 GBps.
    "v4": Chip(275e12, int(30.75 * _GIB), 1200e9, 3, 4096),
    # Google Cloud TPU docs, "TPU v5e": 197 TFLOPs, 16 GB, 819 GBps.
    "v5e": Chip(197e12, int(15.75 * _GIB), 819e9, 2, 256),
    # Google Cloud TPU docs, "TPU v5p": 459 TFLOPs, 95 GB, 2765 GBps; at most 16x16x24 in
    # one job.
    "v5p": Chip(459e12, int(95.74 * _GIB), 2765e9, 3, 6144),
    # Google Cloud TPU docs, "TPU v6e" (Trillium): 918 TFLOPs, 32 GB, 1600 GBps.
    "v6e": Chip(918e12, int(31.25 * _GIB), 1600e9, 2, 256),
}


class Topology(NamedTuple):
    """A slice of a TPU pod.

    Attributes:
        name: Such as `v5e:16x16`.
        kind: Of its chips.
        num_chips: How many there are.
    """

    name: str
    kind: str
    num_chips: int

    @property
    def chip(self) -> Chip:
        """Its chips."""
        return CHIPS[self.kind]


def parse_topology(name: str) -> Topology:
    """Reads the name of a slice.

    Args:
        name: Kind of chip and chips along each axis, such as `v5e:16x16` or `v5p:4x4x4`.

    Raises:
        UserError: If there is no such slice, with some that there are.
    """
    kind, _, chips = name.partition(":")
    if kind not in CHIPS:
        raise UserError(f"'{name}' names no TPU slice; choose from {', '.join(CHIPS)}, e.g. --topology=v5e:2x4")
    chip = CHIPS[kind]
    num_chips = math.prod(map(int, re.findall(r"\d+", chips)))
    if not re.fullmatch(r"\d+" + r"x\d+" * (chip.dimensions - 1), chips) or not 1 <= num_chips <= chip.most_chips:
        raise UserError(
            f"'{name}' names no TPU slice: {kind} has {chip.dimensions} axes and 1 to {chip.most_chips} chips, "
            f"e.g. --topology={kind}:2x{'4' if chip.dimensions == 2 else '2x1'}"
        )
    return Topology(name, kind, num_chips)
