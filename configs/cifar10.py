"""CIFAR-10 with a residual network and a mixture of discretized logistics."""

from vae_jax.config import Config, to_config_dict


def get_config():
    config = to_config_dict(Config())
    config.data.source = "tfds"
    config.data.name = "cifar10"
    config.data.binarization = "none"
    config.model.network = "resnet(channels=(64, 128, 256))"
    config.model.latents = 128
    config.model.likelihood = "discretized_logistic_mixture"
    config.train.batch_size = 128
    config.train.num_epochs = 100
    config.train.clip_norm = 100.0
    config.train.checkpoint_every = 0
    return config
