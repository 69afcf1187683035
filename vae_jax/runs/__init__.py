"""The folder of a run: config, manifest, metrics and checkpoints."""

from vae_jax.runs.folder import RunFolder
from vae_jax.runs.metrics import read_rows, row_line
