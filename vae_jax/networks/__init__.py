"""Networks: tensors in, tensors out. They know nothing of distributions or randomness.

An encoder takes images `[B, H, W, C]`, and optionally a context `[B, L]` (such as one-hot labels), and gives
features `[B, F]`. A decoder takes latents `[B, D]`, to which a context is concatenated by whoever calls it, and
gives the numbers that a likelihood needs for each pixel, `[B, H, W, O]`. `hidden` holds widths in the order in
which the data passes them, so a decoder that mirrors an encoder gets them reversed.

Parameters are float32. `dtype` is what everything is computed in: None for the type of the input, or
`jnp.bfloat16`; what comes out is float32 at least.
"""

from vae_jax.networks.conv import ConvDecoder, ConvEncoder
from vae_jax.networks.mlp import MLPDecoder, MLPEncoder
from vae_jax.networks.resampling import UPSAMPLING
from vae_jax.networks.resnet import ResNetDecoder, ResNetEncoder
