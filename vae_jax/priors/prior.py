"""What all priors declare, with what is usual."""

import flax.linen as nn


class Prior(nn.Module):
    """A prior of its own parameters, all of whose dimensions go into the decoder."""

    is_standard_normal = False
    needs_components = False

    @property
    def num_decoded(self) -> int:
        """All of z."""
        return self.latents
