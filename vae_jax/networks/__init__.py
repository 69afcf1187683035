"""Networks: deterministic maps from arrays to arrays.

An encoder takes images `[B, H, W, C]`, and optionally a context `[B, L]` (such as one-hot labels), and returns features
`[B, F]`. A decoder takes latents `[B, D]`, to which the caller has appended any context, and returns the inputs of a
likelihood for each pixel, `[B, H, W, O]`. `hidden` are widths in the order of computation, so a decoder that mirrors an
encoder gets them reversed.

Parameters are float32. `dtype` is the type of the computation: None for that of the input, or `jnp.bfloat16`; outputs
are at least float32. A network may declare `unroll_on_cpu = True`; see `vae_jax.training.ResidentSteps`.
"""

from vae_jax.networks.conv import ConvDecoder, ConvEncoder
from vae_jax.networks.mlp import MLPDecoder, MLPEncoder
from vae_jax.networks.resnet import ResNetDecoder, ResNetEncoder
from vae_jax.networks.upsampling import UPSAMPLING
