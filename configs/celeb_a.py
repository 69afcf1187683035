"""CelebA at 64x64 with the convolutional network; data.dir is the folder of its images."""

from vae_jax.config import Config, to_config_dict


def get_config():
    config = to_config_dict(Config())
    config.data.source = "folder"
    config.data.dir = "img_align_celeba"
    config.data.image_size = 64
    config.data.binarization = "none"
    config.model.network = "conv(channels=(32, 64, 128, 256))"
    config.model.latents = 128
    config.model.likelihood = "gaussian(learned=True)"
    config.train.batch_size = 128
    config.train.num_epochs = 50
    config.train.checkpoint_every = 0
    return config
