"""Your own pictures at 32x32 with the convolutional network; set --config.data.dir=FOLDER."""

from vae_jax.config import Config, to_config_dict


def get_config():
    config = to_config_dict(Config())
    config.data.source = "folder"
    config.data.image_size = 32
    config.data.binarization = "none"
    config.model.network = "conv(channels=(32, 64, 128))"
    config.model.latents = 32
    config.model.likelihood = "gaussian(learned=True)"
    config.train.num_epochs = 50
    config.train.checkpoint_every = 0
    return config
