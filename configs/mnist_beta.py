"""beta-VAE on MNIST; beta rises over the first two epochs."""

import pathlib
import runpy

_mnist = runpy.run_path(str(pathlib.Path(__file__).with_name("mnist.py")))


def get_config():
    config = _mnist["get_config"]()
    config.objective = "beta(beta=4, annealing=linear, steps=900)"
    return config
