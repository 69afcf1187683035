"""One batch divided over 1, 2, 4 and 8 simulated CPU devices: the time of a step, and that the bound stays the same.

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

TOLERANCE = 1e-4


def measure(num_steps: int, repeats: int) -> dict[str, float]:
    """Trains on all devices of this process and returns times and the bound at the end."""
    import jax

    from vae_jax.config import Config, ModelConfig, TrainConfig
    from vae_jax.data import Data, Dataset
    from vae_jax.performance.measure import StepTimers, in_turns, spread
    from vae_jax.performance.parts import Parts
    from vae_jax.sharding import replicated

    generator = np.random.default_rng(0)
    images = (255 * (generator.random((4096, 28, 28, 1)) < generator.random((28, 28, 1)))).astype(np.uint8)
    data = Data(Dataset("random", images, images[:1], None, None, 255, ""), "dynamic", 0.0, 0)
    model, train = ModelConfig(hidden=(400,), latents=20), TrainConfig(batch_size=128, log_every=num_steps)
    parts = Parts.of(Config(model=model, train=train), data)
    steps = parts.steps()

    def fresh():
        return jax.jit(parts.fresh, out_shardings=replicated(parts.mesh))()

    steps.compile(jax.eval_shape(parts.fresh))
    _, metrics = steps(fresh(), 0, num_steps)
    # The mean over the steps sees each of them.
    elbo = float(np.mean(jax.device_get(metrics[0]["elbo"])))
    timers = StepTimers(steps, fresh(), num_steps, num_steps)
    seconds = spread(in_turns({"step": timers.step}, repeats)["step"])
    return {"devices": parts.mesh.size, "elbo": elbo, **seconds._asdict()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps after which the bounds are compared")
    parser.add_argument("--repeats", type=int, default=5, help="how often so many steps are timed")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of devices")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.steps, arguments.repeats)))
        return
    found = []
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
        found.append(row)
        print(
            f"{row['devices']} devices: {1e3 * row['median']:.2f} ms a step ({1e3 * row['minimum']:.2f} to "
            f"{1e3 * row['maximum']:.2f}), bound of {arguments.steps} steps {row['elbo']:.4f} nats",
            flush=True,
        )
    bounds = [row["elbo"] for row in found]
    difference = (max(bounds) - min(bounds)) / abs(bounds[0])
    print(f"largest difference of the bounds {difference:.1e} of them; at most {TOLERANCE:.0e} is rounding")
    sys.exit(difference > TOLERANCE)


if __name__ == "__main__":
    main()
