"""Two stochastic layers: the second architecture of Burda et al. (arXiv 1509.00519)."""

import pathlib
import runpy

_mnist_iwae = runpy.run_path(str(pathlib.Path(__file__).with_name("mnist_iwae.py")))


def get_config():
    config = _mnist_iwae["get_config"]()
    config.model.posterior = "hierarchical"
    config.model.prior = "hierarchical"
    config.model.latents = 100
    config.model.upper_latents = 50
    config.model.upper_hidden = (100, 100)
    return config
