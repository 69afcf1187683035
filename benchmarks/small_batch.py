"""What small batches cost beside their products: 784-200-200-50 of Burda et al., batches of 20, one sample.

    python benchmarks/small_batch.py

Prints the time of a step over the sum of what it can't do without: its own matrix products, each timed alone, and one
pass of the optimizer, timed alone. The parts take turns, and each ratio is one of the same turn.
"""

import argparse

import numpy as np

from vae_jax.config import Config, ModelConfig, ObjectiveConfig, TrainConfig
from vae_jax.data import Data, Dataset
from vae_jax.performance.report import table
from vae_jax.performance.run import benchmark

GOAL = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="how often each part is timed")
    parser.add_argument("--steps", type=int, default=500, help="steps that are timed at once")
    parser.add_argument("--objective", default="elbo", choices=["elbo", "iwae"], help="of one sample")
    arguments = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (60_000, 28, 28, 1), dtype=np.uint8)
    data = Data(Dataset("random", images, images[:1], None, None, 255, ""), "dynamic", 0.0, 0)
    config = Config(
        model=ModelConfig(hidden=(200, 200), latents=50, activation="tanh"),
        objective=ObjectiveConfig(name=arguments.objective, num_samples=1),
        train=TrainConfig(batch_size=20, adam_epsilon=1e-4, log_every=arguments.steps),
    )
    result = benchmark(config, data, arguments.repeats, arguments.steps)
    print(table(result))
    for kind in result["products"]["own"]["kinds"]:
        seconds = kind["seconds"]["median"]
        rate = kind["flops"] / seconds / 1e9
        print(f"  {kind['count']} x {1e6 * seconds:7.1f} µs, {rate:4.0f} GFLOP/s  {kind['product']}")
    ratio = result["step"]["over_products_and_optimizer"]
    print(
        f"step / (products + optimizer): {ratio['median']:.2f} ({ratio['minimum']:.2f} to {ratio['maximum']:.2f}); "
        f"goal: at most {GOAL}"
    )


if __name__ == "__main__":
    main()
