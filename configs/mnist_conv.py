"""MNIST with the convolutional network."""

import pathlib
import runpy

_mnist = runpy.run_path(str(pathlib.Path(__file__).with_name("mnist.py")))


def get_config():
    config = _mnist["get_config"]()
    config.model.network = "conv(channels=(32, 64))"
    return config
