"""MNIST with a model conditioned on the digit."""

import pathlib
import runpy

_mnist = runpy.run_path(str(pathlib.Path(__file__).with_name("mnist.py")))


def get_config():
    config = _mnist["get_config"]()
    config.model.conditional = True
    return config
