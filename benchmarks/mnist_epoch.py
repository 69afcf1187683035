"""Times a training epoch of 784-400-20 on 60,000 MNIST-sized images, here and in PyTorch.

    pip install -c constraints.txt -e '.[torch]' && python benchmarks/mnist_epoch.py

Two processes take turns, so that noise of the machine falls on both: one trains with this project's own
loop (dynamic binarization, data on the device as uint8), the other runs a plain PyTorch loop over the
whole data set in memory as one float tensor, which it binarizes anew for each batch too, unless
--torch_trains_on_grey spares it that. Each waits without using the
processor while the other works. The images are random: the time doesn't depend on them.
The rate of one large float32 matrix product is measured between the epochs of the first process.
"""

import argparse
import platform
import resource
import statistics
from collections.abc import Callable

import numpy as np
from alternating import by_turns, serve, timed

NUM_IMAGES, SIDE, HIDDEN, LATENTS, BATCH = 60_000, 28, 400, 20, 128
PRODUCT_SIZE = 2048


def flops_per_epoch() -> int:
    """Floating-point operations of the matrix products alone; no gradient flows into the images."""
    pixels = SIDE * SIDE
    products = pixels * HIDDEN + HIDDEN * 2 * LATENTS + LATENTS * HIDDEN + HIDDEN * pixels
    per_image = 2 * (3 * products - pixels * HIDDEN)
    return per_image * BATCH * (NUM_IMAGES // BATCH)


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, SIDE, SIDE, 1), dtype=np.uint8)


def jax_epoch() -> Callable[[], dict[str, float]]:
    """Prepares this project's training loop and returns a function that runs its next epoch."""
    import dataclasses

    import jax

    from vae_jax import build
    from vae_jax.config import Config, ModelConfig, TrainConfig
    from vae_jax.data import Data, Dataset
    from vae_jax.sharding import batch_mesh, replicated
    from vae_jax.training import CheckpointDue, make_run_steps, make_train_step, training_events

    config = Config(
        model=ModelConfig(hidden=(HIDDEN,), latents=LATENTS),
        train=TrainConfig(batch_size=BATCH, num_epochs=1000, checkpoint_every=0),
    )
    pixels = images()
    data = Data(Dataset("random", pixels, pixels[:1], None, None, 255, ""), "dynamic", 0.0, 0)
    shape = data.dataset.image_shape
    model = build.build_model(config.model, shape)
    schedule = build.build_schedule(config, NUM_IMAGES)
    mesh = batch_mesh(BATCH)
    tx = build.build_optimizer(config, schedule.num_steps)
    step = make_train_step(build.build_loss(config, model), tx, build.build_preparation(data))
    events = training_events(
        jax.device_put(build.build_state(config, model, shape, schedule.num_steps), replicated(mesh)),
        make_run_steps(step, mesh),
        jax.device_put(pixels, replicated(mesh)),
        None,
        jax.random.key(0),
        0,
        BATCH,
        dataclasses.replace(schedule, log_every=100),
    )
    matrix = jax.numpy.ones((PRODUCT_SIZE, PRODUCT_SIZE))
    product = jax.jit(lambda a: a @ a)

    def epoch() -> dict[str, float]:
        seconds = timed(lambda: next(event for event in events if isinstance(event, CheckpointDue)))
        best = min(timed(lambda: product(matrix).block_until_ready()) for _ in range(5))
        return {"seconds": seconds, "product_flops": 2 * PRODUCT_SIZE**3 / best}

    return epoch


def torch_epoch(binarize: bool) -> Callable[[], dict[str, float]]:
    """Prepares the PyTorch loop and returns a function that runs its next epoch."""
    import torch
    from torch import nn

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(SIDE * SIDE, HIDDEN)
            self.mean, self.logvar = nn.Linear(HIDDEN, LATENTS), nn.Linear(HIDDEN, LATENTS)
            self.decoder = nn.Sequential(nn.Linear(LATENTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, SIDE * SIDE))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features = torch.relu(self.encoder(x))
            mean, logvar = self.mean(features), self.logvar(features)
            z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            logits = self.decoder(z)
            reconstruction = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            kl = 0.5 * torch.sum(mean**2 + logvar.exp() - 1.0 - logvar)
            return (reconstruction + kl) / len(x)

    data = torch.from_numpy(images().reshape(NUM_IMAGES, -1)).float() / 255.0
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def epoch() -> dict[str, float]:
        def run() -> None:
            order = torch.randperm(NUM_IMAGES)
            for start in range(0, NUM_IMAGES - BATCH + 1, BATCH):
                batch = data[order[start : start + BATCH]]
                loss = model(torch.bernoulli(batch) if binarize else batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return {"seconds": timed(run)}

    return epoch


def worker(which: str) -> None:
    """Serves one of the two."""
    epoch = {
        "jax": jax_epoch,
        "torch": lambda: torch_epoch(binarize=True),
        "torch_grey": lambda: torch_epoch(binarize=False),
    }[which]()
    epoch()  # compiles, warms up
    serve(lambda: {**epoch(), "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs of epochs")
    parser.add_argument(
        "--torch_trains_on_grey", action="store_true", help="spare the PyTorch loop the binarization of its batches"
    )
    parser.add_argument("--worker", choices=["jax", "torch", "torch_grey"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker)
        return
    other = "torch_grey" if arguments.torch_trains_on_grey else "torch"
    workers = {"jax": "jax", "torch": other}
    report(by_turns({name: [__file__, "--worker", which] for name, which in workers.items()}, arguments.pairs))


def report(results: dict[str, list[dict[str, float]]]) -> None:
    """Prints medians over the pairs, with their range."""
    ratios = [t["seconds"] / j["seconds"] for j, t in zip(results["jax"], results["torch"], strict=True)]
    shares = [flops_per_epoch() / r["seconds"] / r["product_flops"] for r in results["jax"]]
    print(f"{platform.machine()}, {platform.platform()}")
    for which, runs in results.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        memory = max(run["peak_memory_mb"] for run in runs)
        print(f"{which:<6} {seconds:.2f} s an epoch, {NUM_IMAGES / seconds:,.0f} images/s, peak memory {memory:.0f} MB")
    rate = statistics.median(r["product_flops"] for r in results["jax"]) / 1e9
    print(f"ratio  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(
        f"share of the rate of a {PRODUCT_SIZE}x{PRODUCT_SIZE} product ({rate:.0f} GFLOP/s): "
        f"{statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"
    )


if __name__ == "__main__":
    main()
