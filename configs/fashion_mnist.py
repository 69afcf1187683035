"""Fashion-MNIST, with the model of `mnist.py`."""

import pathlib
import runpy

_mnist = runpy.run_path(str(pathlib.Path(__file__).with_name("mnist.py")))


def get_config():
    config = _mnist["get_config"]()
    config.data.name = "fashion_mnist"
    return config
