"""CelebA at 64x64 with the convolutional network; data.path names an .npz of such images."""

from vae_jax.config import Config, to_config_dict


def get_config():
    config = to_config_dict(Config())
    config.data.source = "npz"
    config.data.path = "celeb_a_64.npz"
    config.data.binarization = "none"
    config.model.network = "conv"
    config.model.hidden = (32, 64, 128, 256)
    config.model.latents = 128
    config.model.likelihood = "gaussian_learned"
    config.train.batch_size = 128
    config.train.num_epochs = 50
    config.train.checkpoint_every = 0
    return config
