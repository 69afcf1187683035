"""How long a step would take at the published peak rates of a chip."""

import dataclasses

from vae_jax.performance.chips import Chip
from vae_jax.performance.hlo import Collective


@dataclasses.dataclass(frozen=True)
class Work:
    """What one chip does in one step.

    Attributes:
        product_flops: Of matrix products and convolutions; see `hlo.Program`.
        flops: Of everything, as XLA counts them.
        bytes_accessed: What operations read and write, in HBM and in the chip's own memory, as XLA counts them.
        collectives: Exchanges between chips.
    """

    product_flops: int
    flops: int
    bytes_accessed: int
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of one step at the peak rates of the chip: estimated, not measured.

    Attributes:
        products: Product FLOPs over the peak rate.
        memory: Bytes accessed over the bandwidth of HBM, as if none stayed in the chip's own memory.
        collectives: Bytes exchanged over the bandwidth of all links.
        step: The longer of the first two, and the third after it.
    """

    products: float
    memory: float
    collectives: float
    step: float

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(("products", "memory", "collectives"), key=lambda name: getattr(self, name))


def estimate_seconds(work: Work, chip: Chip) -> Estimate:
    """The time of a step at a chip's peak rates: products and memory beside each other, then collectives.

    `max(FLOPs / peak, bytes / bandwidth) + sum of collectives`, where an all-reduce of V bytes over n chips takes
    `2 (n - 1) / n V / link bandwidth` and each other kind half of that.

    Args:
        work: Of one chip.
        chip: The chip.
    """
    products = work.product_flops / chip.flops_per_second
    memory = work.bytes_accessed / chip.memory_bandwidth
    collectives = 0.0
    for each in work.collectives:
        share = (each.group_size - 1) / each.group_size * (2 if each.kind == "all-reduce" else 1)
        collectives += share * each.num_bytes / chip.link_bandwidth
    return Estimate(products, memory, collectives, max(products, memory) + collectives)
