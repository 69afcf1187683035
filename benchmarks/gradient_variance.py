"""Why the reparameterization trick matters: the variance of two unbiased gradients of the same bound.

    pip install -c constraints.txt -e . && python benchmarks/gradient_variance.py --output=gradient_variance.png

Trains `configs/mnist.py` and, at several steps, draws the gradient of the encoder's parameters many times on one
batch: through z (reparameterized), and by the score function with its leave-one-out baseline. Reported is the sum of
the variances of all encoder parameters, over the squared norm of the mean gradient (from the reparameterized draws).
"""

import argparse
import dataclasses
import json

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from vae_jax import build
from vae_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from vae_jax.data import dynamic_binarization
from vae_jax.keys import Stream, stream_key
from vae_jax.models import Batch
from vae_jax.objectives import GRADIENTS, MODEL
from vae_jax.sharding import batch_mesh, replicated

STEPS = (0, 30, 100, 300, 1000, 3000)
DRAWS, DRAWS_AT_ONCE = 200, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="gradient_variance.png", help="PNG file")
    arguments = parser.parse_args()
    config = Config(
        data=DataConfig(source="tfds", name="mnist"),
        model=ModelConfig(network="mlp(hidden=(400,))", latents=20),
        train=TrainConfig(batch_size=128, num_steps=STEPS[-1], log_every=STEPS[-1], checkpoint_every=STEPS[-1]),
    )
    rows = measure(config)
    for row in rows:
        print(json.dumps(row))
    plot(rows, arguments.output)


def measure(config: Config) -> list[dict[str, float]]:
    """Noise-to-signal ratio of both gradients at each of the steps."""
    data = build.build_data(config)
    model = build.build_model_for(config, data)
    losses = {
        gradient: build.build_loss(
            dataclasses.replace(config, objective=dataclasses.replace(config.objective, gradient=gradient)),
            model,
            len(data.training.images),
        )
        for gradient in GRADIENTS
    }
    mesh = batch_mesh(config.train.batch_size)
    steps = build.build_steps(config, model, data, build.build_schedule(config, len(data.training.images)), mesh)
    key = jax.random.key(config.seed)
    state = jax.device_put(build.build_state(config, model, data.image_shape, STEPS[-1]), replicated(mesh))
    images = jnp.asarray(data.training.images[: config.train.batch_size])
    x = dynamic_binarization(images, data.training.max_value, stream_key(key, Stream.EVALUATION))
    statistics = {gradient: make_statistics(loss) for gradient, loss in losses.items()}
    rows = []
    for first, last in zip((0, *STEPS), STEPS, strict=False):
        if last > first:
            state, _ = steps(state, first, last - first)
        found = {gradient: function(state.params, Batch(x), key) for gradient, function in statistics.items()}
        signal = found["reparameterized"][1]
        rows.append({"step": last, **{gradient: variance / signal for gradient, (variance, _) in found.items()}})
    return rows


def make_statistics(loss):
    """A function that gives the total variance of the encoder's gradient, and the squared norm of its mean."""

    @jax.jit
    def draws(params, batch, keys):
        def encoder_gradient(key):
            gradient = jax.grad(lambda params: loss({"params": params}, batch, key, jnp.int32(0)).players[MODEL])(
                params
            )
            return jax.flatten_util.ravel_pytree({part: gradient[part] for part in ("encoder", "posterior")})[0]

        gradients = jax.lax.map(encoder_gradient, keys)
        return jnp.sum(gradients, axis=0), jnp.sum(jnp.square(gradients), axis=0)

    def statistics(params, batch, key) -> tuple[float, float]:
        keys = jax.random.split(stream_key(key, Stream.POSTERIOR_NOISE), DRAWS)
        total, squares = 0.0, 0.0
        for chunk in jnp.split(keys, DRAWS // DRAWS_AT_ONCE):
            sums = draws(params, batch, chunk)
            total += np.asarray(sums[0], np.float64)
            squares += np.asarray(sums[1], np.float64)
        mean = total / DRAWS
        variance = (squares / DRAWS - mean**2) * DRAWS / (DRAWS - 1)
        # The squared norm of an average of draws contains their noise.
        return float(variance.sum()), float((mean**2).sum() - variance.sum() / DRAWS)

    return statistics


def plot(rows: list[dict[str, float]], path: str) -> None:
    """Both curves over the steps, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for gradient, marker in (("score_function", "o"), ("reparameterized", "s")):
        axes.plot([row["step"] for row in rows], [row[gradient] for row in rows], marker=marker, label=gradient)
    axes.set(xscale="symlog", yscale="log", xlabel="training step", ylabel="variance / |mean gradient|²")
    axes.set_title("Gradient of the encoder, MNIST 784-400-20, batch 128")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main()
