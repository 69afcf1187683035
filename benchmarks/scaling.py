"""One batch divided over 1, 2, 4 and 8 simulated CPU devices: the time of a step.

    python benchmarks/scaling.py

Simulated devices share the cores of the machine, so that more of them can't be faster; what shows is the cost of
dividing. Each number of devices is a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys

import numpy as np


def measure(num_steps: int, repeats: int) -> dict[str, float]:
    """Times the step on all devices of this process and returns the times."""

    from vae_jax.config import Config, ModelConfig, TrainConfig
    from vae_jax.data import Dataset
    from vae_jax.performance.benchmark import benchmark

    generator = np.random.default_rng(0)
    images = (255 * (generator.random((4096, 28, 28, 1)) < generator.random((28, 28, 1)))).astype(np.uint8)
    data = Dataset("random", images, images[:1], None, None, 255, "", binarization="dynamic")
    model, train = (
        ModelConfig(network="mlp(hidden=(400,))", latents=20),
        TrainConfig(batch_size=128, log_every=num_steps),
    )
    result = benchmark(Config(model=model, train=train), data, repeats, num_steps)
    return {"devices": result["devices"], **result["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps that are timed at once")
    parser.add_argument("--repeats", type=int, default=5, help="how often so many steps are timed")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of devices")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.steps, arguments.repeats)))
        return
    for count in arguments.devices:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        answer = subprocess.run(
            [sys.executable, __file__, "--worker", f"--steps={arguments.steps}", f"--repeats={arguments.repeats}"],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        row = json.loads(answer.stdout)
        print(
            f"{row['devices']} devices: {1e3 * row['median']:.2f} ms a step ({1e3 * row['minimum']:.2f} to "
            f"{1e3 * row['maximum']:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
