"""The shapes that many signatures name: K samples of z for each of B images, D latents."""

from jaxtyping import Array, Float, Int, Key

RandomKey = Key[Array, ""]
Scalar = Float[Array, ""]
Count = Int[Array, ""]

ImageBatch = Float[Array, "b h w c"]
"""Images as the model sees them: 0 or 1, or values in [0, 1]."""
ImageIds = Int[Array, "b"]
"""The place of each image in its split, of which its noise is a function."""
Samples = Float[Array, "k b d"]
Noise = Float[Array, "k b e"]
Means = Float[Array, "b d"]
PerSample = Float[Array, "k b"]
PerImage = Float[Array, "b"]

Points = Float[Array, "*batch d"]
"""Latents with any axes in front."""
Outputs = Float[Array, "*batch h w o"]
"""What a decoder gives: the numbers that a likelihood needs for each pixel."""
Pixels = Float[Array, "*batch h w c"]
Observed = Float[Array, "*#batch h w c"]
"""Images whose leading axes broadcast against those of `Outputs`."""
Nats = Float[Array, "*batch"]
