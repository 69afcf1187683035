"""The 8x8 digits of scikit-learn: needs no download and takes seconds. These are the defaults of the package."""

from vae_jax.config import Config, to_config_dict


def get_config():
    return to_config_dict(Config())
