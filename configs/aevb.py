"""The networks of Kingma & Welling (arXiv 1312.6114) on MNIST: one layer of 500 tanh units, Adagrad, batches of 100.

The paper tries 3, 5, 10, 20 and 200 latents: --config.model.latents=...
"""

import pathlib
import runpy

_mnist = runpy.run_path(str(pathlib.Path(__file__).with_name("mnist.py")))


def get_config():
    config = _mnist["get_config"]()
    config.model.network = "mlp(hidden=(500,), activation=tanh)"
    config.train.optimizer = "adagrad"
    config.train.learning_rate = 0.02
    config.train.batch_size = 100
    config.train.num_epochs = 100
    return config
