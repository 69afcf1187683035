"""Times a training epoch of 784-400-20 on 60,000 MNIST-sized images, here and elsewhere, alternating in one run.

    pip install -c constraints.txt -e '.[torch]' && python benchmarks/mnist_epoch.py

Each side is a process, which waits without using the processor while another works:

    vae_jax        this project's own loop: dynamic binarization, data on the device as uint8
    torch          a plain PyTorch loop over the data set in memory as one float tensor; binarizes each batch anew too,
                   unless --torch_trains_on_grey spares it that
    torch_images   the same model fed as in pytorch/examples/vae: image by image through PIL and a DataLoader; grey
    jax_steps      a jitted step for each batch that NumPy takes out of a float array, as in most tutorials
    flax_example   the structure of flax/examples/vae, whose step isn't jitted; --flax_steps of an epoch, scaled up

The images are made up (probabilities from 8 random factors): the time doesn't depend on them, and the losses, the same
to a percent or two after as many epochs, show that all learn the same thing.
"""

import argparse
import platform
import resource
import statistics
from collections.abc import Callable

import numpy as np
from alternating import Measurement, by_turns, serve, timed

NUM_IMAGES, SIDE, HIDDEN, LATENTS, BATCH = 60_000, 28, 400, 20, 128
STEPS = NUM_IMAGES // BATCH
PRODUCT_SIZE = 2048
SIDES = ("vae_jax", "torch", "torch_images", "jax_steps", "flax_example")


def flops_per_epoch() -> int:
    """Floating-point operations of the matrix products alone; no gradient flows into the images."""
    pixels = SIDE * SIDE
    products = pixels * HIDDEN + HIDDEN * 2 * LATENTS + LATENTS * HIDDEN + HIDDEN * pixels
    return 2 * (3 * products - pixels * HIDDEN) * BATCH * STEPS


def images() -> np.ndarray:
    """`uint8[N, 28, 28]`, the same in all processes."""
    generator = np.random.default_rng(0)
    loadings = generator.standard_normal((8, SIDE * SIDE), dtype=np.float32)
    made = np.empty((NUM_IMAGES, SIDE * SIDE), np.uint8)
    # In parts, so that making them doesn't count as memory that training takes.
    for part in np.split(made, 60):
        logits = generator.standard_normal((len(part), 8), dtype=np.float32) @ loadings - 2.0
        part[:] = np.round(255.0 / (1.0 + np.exp(-2.0 * logits)))
    return made.reshape(-1, SIDE, SIDE)


def of_vae_jax() -> Callable[[], Measurement]:
    """Prepares this project's training loop and returns a function that runs its next epoch."""
    import jax

    from vae_jax import build
    from vae_jax.config import Config, ModelConfig, TrainConfig
    from vae_jax.data import Dataset
    from vae_jax.performance.benchmark import large_product
    from vae_jax.sharding import batch_mesh, replicated
    from vae_jax.training import CheckpointDue, Logged, training_events

    config = Config(
        model=ModelConfig(network=f"mlp(hidden={(HIDDEN,)})", latents=LATENTS),
        train=TrainConfig(batch_size=BATCH, num_epochs=1000, checkpoint_every=0),
    )
    pixels = images()[..., None]
    data = Dataset("random", pixels, pixels[:1], None, None, 255, "", binarization="dynamic")
    shape = data.image_shape
    model = build.build_model(config.model, shape)
    schedule = build.build_schedule(config, NUM_IMAGES)
    mesh = batch_mesh(BATCH)
    steps = build.build_steps(config, model, data, schedule, mesh)
    state = jax.jit(
        lambda: build.build_state(config, model, shape, schedule.num_steps), out_shardings=replicated(mesh)
    )()
    events = training_events(state, steps, BATCH, schedule)
    product = large_product(PRODUCT_SIZE, mesh)

    def epoch() -> Measurement:
        logged: list[Logged] = []

        def run() -> None:
            for event in events:
                if isinstance(event, CheckpointDue):
                    jax.block_until_ready(event.state)
                    return
                logged.append(event)

        seconds = timed(run)
        # The last chunk of an epoch is shorter.
        lengths = [min(schedule.log_every, event.step % STEPS or STEPS % schedule.log_every) for event in logged]
        loss = np.average([float(event.metrics["loss"]) for event in logged], weights=lengths)
        best = min(product() for _ in range(5))
        return {"seconds": seconds, "loss": float(loss), "product_flops": mesh.size * 2 * PRODUCT_SIZE**3 / best}

    return epoch


def epoch_of(side: str, grey: bool, flax_steps: int) -> Callable[[], Measurement]:
    """Prepares a side and returns a function that runs its next epoch."""
    sizes = HIDDEN, LATENTS, BATCH
    if side == "vae_jax":
        return of_vae_jax()
    if side.startswith("torch"):
        import in_pytorch

        epoch = (
            in_pytorch.image_by_image(images(), *sizes)
            if side == "torch_images"
            else in_pytorch.in_memory(images(), *sizes, binarize=not grey)
        )
    else:
        import in_plain_jax

        epoch = (
            in_plain_jax.step_by_step(images(), *sizes)
            if side == "jax_steps"
            else in_plain_jax.like_flax_example(images(), *sizes, flax_steps)
        )
    scale = STEPS / flax_steps if side == "flax_example" else 1.0

    def measure() -> Measurement:
        losses: list[float] = []
        seconds = timed(lambda: losses.append(epoch()))
        return {"seconds": seconds * scale, "loss": losses[0]}

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each side, after one that doesn't count")
    parser.add_argument("--only", default=",".join(SIDES), help="sides that take part, with commas between them")
    parser.add_argument(
        "--torch_trains_on_grey", action="store_true", help="spare the PyTorch loop the binarization of its batches"
    )
    parser.add_argument("--flax_steps", type=int, default=STEPS // 10, help=f"of the {STEPS} of an epoch")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        epoch = epoch_of(arguments.worker, arguments.torch_trains_on_grey, arguments.flax_steps)
        serve(lambda: {**epoch(), "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024})
        return
    sides = arguments.only.split(",")
    unknown = [side for side in sides if side not in SIDES]
    if unknown:
        parser.error(f"there is no side '{unknown[0]}'; choose from {', '.join(SIDES)}")
    given = [f"--flax_steps={arguments.flax_steps}", *["--torch_trains_on_grey"] * arguments.torch_trains_on_grey]
    commands = {side: [__file__, f"--worker={side}", *given] for side in sides}
    report(by_turns(commands, arguments.rounds), arguments.flax_steps)


def report(results: dict[str, list[Measurement]], flax_steps: int) -> None:
    """Prints medians over the rounds, and ratios of the same round, with their ranges."""
    print(f"{platform.machine()}, {platform.platform()}")
    for side, runs in results.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        memory = max(run["peak_memory_mb"] for run in runs)
        # The first epoch, which isn't timed, counts here.
        epochs = (len(runs) + 1) * (flax_steps / STEPS if side == "flax_example" else 1.0)
        scaled = f" ({flax_steps} steps, scaled up)" if side == "flax_example" else ""
        print(
            f"{side:<13} {seconds:6.2f} s an epoch{scaled}, {NUM_IMAGES / seconds:,.0f} images/s, peak memory "
            f"{memory:.0f} MB, loss {runs[-1]['loss']:.2f} nats after {epochs:.3g} epochs"
        )
    ours = results.get("vae_jax")
    if ours is None:
        return
    for side, runs in results.items():
        if side != "vae_jax":
            print(
                f"{side} / vae_jax: {_spread([b['seconds'] / a['seconds'] for a, b in zip(ours, runs, strict=True)])}"
            )
    rate = statistics.median(run["product_flops"] for run in ours) / 1e9
    shares = [100.0 * flops_per_epoch() / run["seconds"] / run["product_flops"] for run in ours]
    print(f"share of the rate of a {PRODUCT_SIZE}x{PRODUCT_SIZE} product ({rate:.0f} GFLOP/s), %: {_spread(shares)}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
