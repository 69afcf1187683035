"""What is behind `vae_jax.VAETransformer`."""
