"""How time and memory of a training step grow with each size of it, so that anything superlinear shows.

    python benchmarks/cost_against_size.py --quick

One size changes at a time, the others are those of 784-400-20 with batches of 128; each size is timed by itself.
The last three columns are slopes between a row and the row before on logarithmic axes: 1 is proportional, below 1 is
better. Memory is what the compiled step takes beside the data set: parameters, optimizer and intermediate values.
"""

import argparse
import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from vae_jax.config import Config, ModelConfig, TrainConfig
from vae_jax.data import Dataset
from vae_jax.performance.benchmark import benchmark

NUM_IMAGES, EPOCH, SIDE = 4096, 60_000, 28
BASE = Config(model=ModelConfig(network="mlp(hidden=(400,))", latents=20), train=TrainConfig(batch_size=128))
SIZES = {
    "batch size": ((32, 64, 128, 256, 512, 1024), (64, 128, 256)),
    "latents": ((10, 20, 40, 80, 160, 320), (20, 80, 320)),
    "hidden size": ((100, 200, 400, 800, 1600), (200, 400, 800)),
    "samples (K of iwae)": ((1, 2, 5, 10, 20, 50), (1, 5, 20)),
    "pixels": ((14, 28, 56, 112), (14, 28, 56)),
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of a step: seconds, bytes and floating-point operations ; and seconds of an epoch."""

    seconds: float
    lowest: float
    highest: float
    memory: int
    flops: int
    epoch: float


def changed(name: str, size: int) -> tuple[Config, int]:
    """The base with one size changed, and the side of the images."""
    if name == "batch size":
        return dataclasses.replace(BASE, train=dataclasses.replace(BASE.train, batch_size=size)), SIDE
    if name == "latents":
        return dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, latents=size)), SIDE
    if name == "hidden size":
        return dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, network=f"mlp(hidden=({size},))")), SIDE
    if name == "pixels":
        return BASE, size
    return dataclasses.replace(BASE, objective=f"iwae(num_samples={size})"), SIDE


def cost_of(config: Config, side: int, repeats: int) -> Cost:
    """Measures the step of a config on random images."""
    images = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, side, side, 1), dtype=np.uint8)
    data = Dataset("random", images, images[:1], None, None, 255, "", binarization="dynamic")
    result = benchmark(config, data, repeats, num_steps=0)
    seconds, memory = result["seconds"], result["memory"]["needed"] - images.nbytes
    epoch = seconds["median"] * EPOCH / config.train.batch_size
    return Cost(seconds["median"], seconds["minimum"], seconds["maximum"], memory, result["flops"], epoch)


def rows(name: str, costs: dict[int, Cost]) -> Iterator[str]:
    """A table of one size, and the slope over the whole of it."""
    yield (
        f"\n{name:<20} {'ms a step (range)':>26} {'s / 60,000':>11} {'MB':>8} {'MFLOP':>9}   "
        "slope of time, memory, FLOPs"
    )
    before: tuple[int, Cost] | None = None
    for size, found in costs.items():
        # Work grows with the number of pixels.
        size = size * size if name == "pixels" else size
        milliseconds = f"{1e3 * found.seconds:.3g} ({1e3 * found.lowest:.3g} to {1e3 * found.highest:.3g})"
        slopes = "" if before is None else slope_text(*before, size, found)
        yield (
            f"{size:<20} {milliseconds:>26} {found.epoch:>11.3g} {found.memory / 2**20:>8.1f} "
            f"{found.flops / 1e6:>9.0f}   {slopes}"
        )
        before = size, found
    (first, *_, last) = (size * size if name == "pixels" else size for size in costs)
    (least, *_, most) = costs.values()
    yield f"{'from first to last':<78} {slope_text(first, least, last, most)}"


def slope_text(size: int, before: Cost, larger: int, after: Cost) -> str:
    """Slopes on logarithmic axes."""
    of: list[Callable[[Cost], float]] = [lambda c: c.seconds, lambda c: c.memory, lambda c: c.flops]
    slopes = [math.log(value(after) / value(before)) / math.log(larger / size) for value in of]
    return "  ".join(f"{slope:5.2f}" for slope in slopes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three sizes of each, fewer repeats")
    parser.add_argument("--repeats", type=int, help="how often each is timed")
    parser.add_argument("--only", choices=list(SIZES), action="append", help="a size that is changed; may be repeated")
    arguments = parser.parse_args()
    repeats = arguments.repeats or (3 if arguments.quick else 7)
    for name in arguments.only or SIZES:
        sizes = SIZES[name][arguments.quick]
        for row in rows(name, {size: cost_of(*changed(name, size), repeats) for size in sizes}):
            print(row, flush=True)


if __name__ == "__main__":
    main()
