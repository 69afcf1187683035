"""Frey Faces, the second data set of Kingma & Welling (arXiv 1312.6114), with a learned variance.

The file is an .npz with `images`, uint8 [1965, 28, 20, 1]: --config.data.path=frey_faces.npz
"""

from vae_jax.config import Config, to_config_dict


def get_config():
    config = to_config_dict(Config())
    config.data.source = "npz"
    config.data.path = "frey_faces.npz"
    config.data.binarization = "none"
    config.data.test_fraction = 0.1
    config.model.likelihood = "gaussian(learned=True)"
    config.model.network = "mlp(hidden=(200,))"
    config.model.latents = 2
    config.train.batch_size = 100
    config.train.num_epochs = 1000
    return config
