"""MNIST, 784-400-20, dynamically binarized."""

from vae_jax.config import Config, to_config_dict


def get_config():
    config = to_config_dict(Config())
    config.data.source = "tfds"
    config.data.name = "mnist"
    config.model.network = "mlp(hidden=(400,))"
    config.model.latents = 20
    config.train.batch_size = 128
    config.train.num_epochs = 20
    config.train.checkpoint_every = 0  # one per epoch
    return config
