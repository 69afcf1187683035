"""beta-VAE on MNIST; beta rises over the first two epochs."""

import pathlib
import runpy

_mnist = runpy.run_path(str(pathlib.Path(__file__).with_name("mnist.py")))


def get_config():
    config = _mnist["get_config"]()
    config.objective.name = "beta"
    config.objective.beta = 4.0
    config.objective.annealing = "linear"
    config.objective.annealing_steps = 900
    return config
