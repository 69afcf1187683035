"""Two stochastic layers: the second architecture of Burda et al. (arXiv 1509.00519)."""

import pathlib
import runpy

_mnist_iwae = runpy.run_path(str(pathlib.Path(__file__).with_name("mnist_iwae.py")))


def get_config():
    config = _mnist_iwae["get_config"]()
    config.model.posterior = "hierarchical(upper=50, hidden=(100, 100))"
    config.model.prior = "hierarchical(upper=50, hidden=(100, 100))"
    config.model.latents = 100
    return config
