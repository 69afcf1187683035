"""Two other JAX sides of `mnist_epoch.py`: the loop of most tutorials, and the structure of flax/examples/vae."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

Epoch = Callable[[], float]


class Encoder(nn.Module):
    """One hidden layer, then mean and log-variance."""

    hidden: int
    latents: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.Dense(self.latents)(x), nn.Dense(self.latents)(x)


class Decoder(nn.Module):
    """One hidden layer, then logits."""

    hidden: int
    pixels: int

    @nn.compact
    def __call__(self, z):
        return nn.Dense(self.pixels)(nn.relu(nn.Dense(self.hidden)(z)))


class VAE(nn.Module):
    """Both, and the noise between them."""

    hidden: int
    latents: int
    pixels: int

    def setup(self):
        self.encoder = Encoder(self.hidden, self.latents)
        self.decoder = Decoder(self.hidden, self.pixels)

    def __call__(self, x, key):
        mean, logvar = self.encoder(x)
        noise = jax.random.normal(key, mean.shape)
        return self.decoder(mean + jnp.exp(0.5 * logvar) * noise), mean, logvar


def step_by_step(images: np.ndarray, hidden: int, latents: int, batch_size: int) -> Epoch:
    """A jitted step, called for each batch that NumPy takes out of a float array; binarized in the step.

    The host doesn't wait for a loss before the end of the epoch.
    """
    data = images.reshape(len(images), -1).astype(np.float32) / 255.0
    model, tx = VAE(hidden, latents, data.shape[1]), optax.adam(1e-3)
    key = jax.random.key(0)
    params = model.init(key, data[:1], key)["params"]
    opt_state, generator = tx.init(params), np.random.default_rng(0)

    @jax.jit
    def train_step(params, opt_state, batch, key):
        binary_key, noise_key = jax.random.split(key)
        x = jax.random.bernoulli(binary_key, batch).astype(jnp.float32)

        def loss_of(params):
            logits, mean, logvar = model.apply({"params": params}, x, noise_key)
            reconstruction = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
            kl = 0.5 * jnp.sum(mean**2 + jnp.exp(logvar) - 1.0 - logvar, -1)
            return jnp.mean(reconstruction + kl)

        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    def epoch() -> float:
        nonlocal params, opt_state, key
        order, losses = generator.permutation(len(data)), []
        for start in range(0, len(data) - batch_size + 1, batch_size):
            key, step_key = jax.random.split(key)
            batch = data[order[start : start + batch_size]]
            params, opt_state, loss = train_step(params, opt_state, batch, step_key)
            losses.append(loss)
        jax.block_until_ready(params)
        return float(np.mean(jax.device_get(losses)))

    return epoch


def like_flax_example(images: np.ndarray, hidden: int, latents: int, batch_size: int, num_steps: int) -> Epoch:
    """The structure of flax/examples/vae: no `jit` around the step, and the model built anew in each.

    Its TensorFlow pipeline is replaced by rows of an array; as there the images are binary from the start.

    Args:
        images: `uint8[N, H, W]`.
        hidden: Width of the hidden layers; 500 in the original.
        latents: Numbers in z.
        batch_size: Images per step.
        num_steps: Steps that stand for an epoch.
    """
    generator = np.random.default_rng(0)
    grey = images.reshape(len(images), -1).astype(np.float32) / 255.0
    data = (generator.random(grey.shape, dtype=np.float32) < grey).astype(np.float32)
    key = jax.random.key(0)

    def model() -> VAE:
        return VAE(hidden, latents, data.shape[1])

    @jax.vmap
    def kl_divergence(mean, logvar):
        return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar)

    @jax.vmap
    def cross_entropy(logits, x):
        log_probs = nn.log_sigmoid(logits)
        return -jnp.sum(x * log_probs + (1.0 - x) * jnp.log(-jnp.expm1(log_probs)))

    def loss_of(params, batch, key):
        logits, mean, logvar = model().apply({"params": params}, batch, key)
        return cross_entropy(logits, batch).mean() + kl_divergence(mean, logvar).mean()

    def train_step(state, batch, key):
        return state.apply_gradients(grads=jax.grad(lambda params: loss_of(params, batch, key))(state.params))

    params = model().init(key, jnp.ones((batch_size, data.shape[1])), key)["params"]
    state = train_state.TrainState.create(apply_fn=model().apply, params=params, tx=optax.adam(1e-3))

    def epoch() -> float:
        nonlocal state, key
        batch = data[:batch_size]
        for _ in range(num_steps):
            batch = data[generator.integers(0, len(data), batch_size)]
            key, step_key = jax.random.split(key)
            state = train_step(state, batch, step_key)
        jax.block_until_ready(state)
        return float(loss_of(state.params, batch, key))

    return epoch
