"""What all priors declare, with what is usual."""

from typing import Any

import flax.linen as nn


class Prior(nn.Module):
    """A prior of its own parameters, all of whose dimensions go into the decoder."""

    is_standard_normal = False
    needs_components = False
    takes_context = False
    takes_maps = False

    @property
    def shape(self) -> Any:
        """Shape of one z: `(D,)`, or `(h, w, c)` for a map."""
        return (self.latents,) if isinstance(self.latents, int) else self.latents

    @property
    def decoded_shape(self) -> tuple[int, ...]:
        """Shape of what goes into the decoder."""
        return self.shape

    def decoded(self, z: Any) -> Any:
        """What of z goes into the decoder."""
        return z
