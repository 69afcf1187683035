"""The variational autoencoder of Kingma & Welling (arXiv 1312.6114) as pure functions."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_jax.api import decode, elbo, encode, init, sample
    from vae_jax.build import build_model
    from vae_jax.config import Config, ModelConfig
    from vae_jax.data import load_digits
    from vae_jax.estimator import VAETransformer
    from vae_jax.loaded import LoadedModel, load

__all__ = [
    "Config",
    "LoadedModel",
    "ModelConfig",
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

_HOMES = {
    "vae_jax.api": ("decode", "elbo", "encode", "init", "sample"),
    "vae_jax.build": ("build_model",),
    "vae_jax.config": ("Config", "ModelConfig"),
    "vae_jax.data": ("load_digits",),
    "vae_jax.estimator": ("VAETransformer",),
    "vae_jax.loaded": ("LoadedModel", "load"),
}


def __getattr__(name: str) -> Any:
    # Loaded when first asked for, so that a module that needs little doesn't pay for all.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'vae_jax' has no attribute '{name}'")
