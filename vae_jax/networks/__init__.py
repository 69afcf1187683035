"""Networks: deterministic maps from arrays to arrays.

A `Network` is a pair of an encoder and a decoder. An encoder takes images `[B, H, W, C]`, and optionally a context
`[B, L]` (such as one-hot labels), and returns features `[B, F]`. A decoder takes latents `[B, D]`, to which the caller
has appended any context, and returns the inputs of a likelihood for each pixel, `[B, H, W, O]`. Where z is a map,
features and latents are maps `[B, h, w, F]` and `[B, h, w, c]`. `hidden` are widths in the order of computation.

Parameters are float32. `dtype` is the type of the computation: None for that of the input, or `jnp.bfloat16`; outputs
are at least float32. A network may declare `unroll_on_cpu = True`; see `vae_jax.training.ResidentSteps`.
"""

from vae_jax.networks.conv import ConvDecoder, ConvEncoder, ConvNet
from vae_jax.networks.mlp import MLP, MLPDecoder, MLPEncoder
from vae_jax.networks.network import Network
from vae_jax.networks.resnet import ResNet, ResNetDecoder, ResNetEncoder
from vae_jax.networks.upsampling import UPSAMPLING
