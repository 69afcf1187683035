"""Times log p(x) by importance sampling with K = 5000, here and by pythae's `get_nll`, for the same 784-400-20 model.

    pip install -c constraints.txt -e '.[pythae]' && python benchmarks/log_likelihood.py

Two processes take turns, each with both cores while the other waits. They hold the same parameters (those of a run
if --workdir names one, else fresh ones) and estimate the same binary images, so that the estimates can be compared
too. pythae works in its default chunks of 100 samples; here `evaluate.memory_mb` decides, as in `evaluate`.
"""

import argparse
import statistics
from collections.abc import Callable

import numpy as np
from alternating import Measurement, by_turns, serve, timed

SHAPE, HIDDEN, LATENTS, NUM_SAMPLES = (28, 28, 1), 400, 20, 5000
IMAGES = {"vae_jax": 200, "pythae": 10}


def model_and_images(workdir: str | None):
    """The model, its variables, and binary images."""
    import jax

    from vae_jax import build
    from vae_jax.config import ModelConfig
    from vae_jax.models import init_variables
    from vae_jax.trained import open_run

    if workdir is not None:
        trained = open_run(workdir)
        return trained.model, trained.variables, trained.data.for_evaluation("test").images[: max(IMAGES.values())]
    model = build.build_model(ModelConfig(network=f"mlp(hidden={(HIDDEN,)})", latents=LATENTS), SHAPE)
    images = np.random.default_rng(0).integers(0, 2, (max(IMAGES.values()), *SHAPE), dtype=np.uint8)
    return model, init_variables(model, jax.random.key(0), SHAPE), images


def of_vae_jax(workdir: str | None) -> Callable[[], Measurement]:
    """Prepares this project's estimate and returns a function that makes it once."""
    import jax

    from vae_jax.config import EvaluateConfig
    from vae_jax.evaluation import make_importance_estimate, map_images, samples_at_once
    from vae_jax.sharding import batch_mesh, replicated

    model, variables, images = model_and_images(workdir)
    batch = 100
    chunk = samples_at_once(model, SHAPE, batch, EvaluateConfig().memory_mb)
    function, mesh, key = make_importance_estimate(model, NUM_SAMPLES, chunk), batch_mesh(batch), jax.random.key(0)
    variables = jax.device_put(variables, replicated(mesh))

    def measure() -> Measurement:
        found = []
        seconds = timed(
            lambda: found.append(
                map_images(
                    lambda batch, ids: function(variables, batch, ids, key), images, 1, batch, mesh
                ).log_likelihood
            )
        )
        some = found[0][: IMAGES["pythae"]]
        return {"seconds": seconds / len(images), "log_likelihood": float(np.mean(some, dtype=np.float64))}

    return measure


def of_pythae(workdir: str | None) -> Callable[[], Measurement]:
    """Gives pythae the same model and returns a function that calls its `get_nll`."""
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from torch import nn

    _, variables, images = model_and_images(workdir)
    params = variables["params"]

    def linear(layer: dict) -> nn.Linear:
        kernel, bias = (np.array(layer[name]) for name in ("kernel", "bias"))
        made = nn.Linear(*kernel.shape)
        made.load_state_dict({"weight": torch.from_numpy(kernel.T.copy()), "bias": torch.from_numpy(bias)})
        return made

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.features = linear(params["encoder"]["Dense_0"])
            self.mean, self.logvar = (linear(params["posterior"][name]) for name in ("mean", "logvar"))

        def forward(self, x: torch.Tensor) -> ModelOutput:
            features = torch.relu(self.features(x.reshape(x.shape[0], -1)))
            return ModelOutput(embedding=self.mean(features), log_covariance=self.logvar(features))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                linear(params["decoder"]["Dense_0"]), nn.ReLU(), linear(params["decoder"]["Dense_1"]), nn.Sigmoid()
            )

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.layers(z).reshape(-1, 1, 28, 28))

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENTS, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(), decoder=Decoder()).eval()
    data = torch.from_numpy(images[: IMAGES["pythae"]].reshape(-1, 1, 28, 28)).float()

    def measure() -> Measurement:
        found = []
        with torch.no_grad():
            seconds = timed(lambda: found.append(model.get_nll(data, n_samples=NUM_SAMPLES, batch_size=100)))
        return {"seconds": seconds / len(data), "log_likelihood": float(found[0])}

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--workdir", help="a run of configs/mnist.py whose parameters and test images are used")
    parser.add_argument("--worker", choices=list(IMAGES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        prepare = {"vae_jax": of_vae_jax, "pythae": of_pythae}[arguments.worker]
        serve(prepare(arguments.workdir))
        return
    given = [f"--workdir={arguments.workdir}"] if arguments.workdir else []
    results = by_turns({name: [__file__, "--worker", name, *given] for name in IMAGES}, arguments.rounds)
    for name, runs in results.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        print(f"{name:<8} {seconds:.4f} s an image, log p(x) {runs[-1]['log_likelihood']:.3f} nats (first 10 images)")
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(results["vae_jax"], results["pythae"], strict=True)]
    print(f"ratio    {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}), K = {NUM_SAMPLES}")


if __name__ == "__main__":
    main()
