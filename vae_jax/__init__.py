"""The variational autoencoder of Kingma & Welling (arXiv 1312.6114): training, trained models and pure functions."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_jax.api import decode, elbo, encode, init, sample
    from vae_jax.build import build_model
    from vae_jax.config import Config, ModelConfig
    from vae_jax.data import load_digits
    from vae_jax.estimator import VAETransformer
    from vae_jax.loading import load
    from vae_jax.trained import TrainedModel

__all__ = [
    "Config",
    "ModelConfig",
    "TrainedModel",
    "VAETransformer",
    "build_model",
    "decode",
    "elbo",
    "encode",
    "init",
    "load",
    "load_digits",
    "sample",
]

_MODULES = {
    "vae_jax.api": ("decode", "elbo", "encode", "init", "sample"),
    "vae_jax.build": ("build_model",),
    "vae_jax.config": ("Config", "ModelConfig"),
    "vae_jax.data": ("load_digits",),
    "vae_jax.estimator": ("VAETransformer",),
    "vae_jax.loading": ("load",),
    "vae_jax.trained": ("TrainedModel",),
}


def __getattr__(name: str) -> Any:
    # Imported at the first use, so that a module that needs little doesn't import everything.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'vae_jax' has no attribute '{name}'")
