"""Tiny runs for the tests of reports."""

import pathlib

from vae_jax.cli import main

TINY = [
    *("--config.model.network.hidden=(8,)", "--config.model.latents=3", "--config.train.num_steps=40"),
    *("--config.train.log_every=10", "--config.train.checkpoint_every=20", "--config.train.report=False"),
]


def train(folder: pathlib.Path, *arguments: str) -> pathlib.Path:
    """A run in this folder."""
    main([f"--workdir={folder}", *TINY, *arguments])
    return folder
