"""The embedded 8x8 digits: needs no network and takes seconds. The package's own defaults."""

from vae_jax.config import Config, to_config_dict


def get_config():
    return to_config_dict(Config())
