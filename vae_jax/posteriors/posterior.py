"""What all posteriors declare, with what is usual."""

import flax.linen as nn


class Posterior(nn.Module):
    """A posterior with a density, whose samples are differentiable; `vae_jax.posteriors` says what these mean."""

    analytic_kl = False
    has_density = True
    log_prob_anywhere = False
    reparameterized = True
    factorized = False
    deterministic = False

    @property
    def noise_size(self) -> int:
        """One number for each dimension."""
        return self.latents
