"""What a run came to, on one page that needs nothing else."""

from vae_jax.report.one import report_page
from vae_jax.report.several import comparison_page
