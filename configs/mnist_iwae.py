"""The importance-weighted autoencoder of Burda et al. (arXiv 1509.00519), one stochastic layer.

784-200-200-50 with tanh, batches of 20, 50 samples, Adam with epsilon 1e-4, and eight learning rates
0.001 * 10^(-i/7) for 3^i epochs, i = 0..7; 3280 epochs in total. For fewer epochs set train.num_epochs: the schedule
up to there is the same.
"""

import pathlib
import runpy

_mnist = runpy.run_path(str(pathlib.Path(__file__).with_name("mnist.py")))


def get_config():
    config = _mnist["get_config"]()
    config.model.network = "mlp(hidden=(200, 200), activation=tanh)"
    config.model.latents = 50
    config.objective = "iwae(num_samples=50)"
    config.train.batch_size = 20
    config.train.num_epochs = 3280
    config.train.schedule = "iwae"
    config.train.optimizer = "adam(epsilon=1e-4)"
    config.train.log_every = 500
    config.train.checkpoint_every = 0
    config.data.validation_fraction = 0.0
    config.evaluate.num_samples = 5000
    return config
