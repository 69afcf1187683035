"""Networks: tensors in, tensors out. They know nothing of distributions or randomness."""

from vae_jax.networks.mlp import MLPDecoder, MLPEncoder

__all__ = ["MLPDecoder", "MLPEncoder"]
