"""What a run came to, on one page that needs nothing else."""

from vae_jax.report.comparison_page import comparison_page
from vae_jax.report.run_page import report_page
