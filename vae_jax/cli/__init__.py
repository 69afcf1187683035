"""The command line: one small module a verb."""

from vae_jax.cli.app import main

__all__ = ["main"]
