"""The shapes that many signatures name: K samples of z for each of B images, D latents."""

from jaxtyping import Array, Bool, Float, Int, Key

RandomKey = Key[Array, ""]
Scalar = Float[Array, ""]
Count = Int[Array, ""]

ImageBatch = Float[Array, "b *event"]
"""Examples as the model sees them: images `[B, H, W, C]` or rows `[B, D]`."""
ImageIds = Int[Array, "b"]
"""The place of each image in its split, of which its noise is a function."""
Samples = Float[Array, "k b *z"]
Noise = Float[Array, "k b e"]
Means = Float[Array, "b *z"]
PerSample = Float[Array, "k b"]
PerImage = Float[Array, "b"]

Points = Float[Array, "*batch d"]
"""Latents with any axes in front."""
Outputs = Float[Array, "*batch h w o"]
"""What a decoder gives: the numbers that a likelihood needs for each pixel."""
Pixels = Float[Array, "*batch h w c"]
Data = Float[Array, "*#batch h w c"]
"""Images whose leading axes broadcast against those of `Outputs`."""
Mask = Bool[Array, "*#batch h w c"] | None
"""Which of these values are observed; None: all."""
Nats = Float[Array, "*batch"]
