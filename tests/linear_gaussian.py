"""Linear-Gaussian models, of which everything is known in closed form.

For x = W z + b + noise of variance s: p(x) = N(b, W W' + s I), and p(z|x) = N(A (x - b), P^-1) with P = I + W'W / s
and A = P^-1 W' / s (Tipping & Bishop 1999).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from vae_jax.build import build_model
from vae_jax.config import ModelConfig
from vae_jax.models import VAE, Variables, init_variables


@dataclasses.dataclass(frozen=True)
class LinearGaussian:
    """p(x|z) = N(x; W z + b, s I), in float64."""

    weights: np.ndarray
    bias: np.ndarray
    variance: float
    shape: tuple[int, int, int]

    @classmethod
    def draw(cls, shape: tuple[int, int, int], latents: int, seed: int = 0, variance: float = 0.3) -> "LinearGaussian":
        """Columns that aren't orthogonal, so that no diagonal posterior is exact."""
        rng, pixels = np.random.default_rng(seed), int(np.prod(shape))
        weights = rng.normal(size=(pixels, latents)) / np.sqrt(pixels) * 1.5
        return cls(weights, rng.uniform(size=pixels), variance, shape)

    @property
    def latents(self) -> int:
        return self.weights.shape[1]

    @property
    def precision(self) -> np.ndarray:
        """Of p(z|x)."""
        return np.eye(self.latents) + self.weights.T @ self.weights / self.variance

    @property
    def covariance(self) -> np.ndarray:
        """Of p(z|x)."""
        return np.linalg.inv(self.precision)

    @property
    def encoder(self) -> np.ndarray:
        """The matrix A of E[z|x] = A (x - b)."""
        return np.linalg.solve(self.precision, self.weights.T) / self.variance

    def sample(self, num_images: int, seed: int = 1) -> np.ndarray:
        """Images `[N, H, W, C]` from p(x)."""
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(num_images, self.latents))
        noise = rng.normal(size=(num_images, len(self.bias))) * np.sqrt(self.variance)
        return (z @ self.weights.T + self.bias + noise).reshape(num_images, *self.shape)

    def log_likelihood(self, x: np.ndarray, variance: float | None = None) -> np.ndarray:
        """log p(x), by scipy; with another variance of the noise if one is given."""
        variance = self.variance if variance is None else variance
        covariance = self.weights @ self.weights.T + variance * np.eye(len(self.bias))
        return np.atleast_1d(scipy.stats.multivariate_normal(self.bias, covariance).logpdf(x.reshape(len(x), -1)))

    def diagonal_gap(self) -> float:
        """KL of the best diagonal Gaussian, whose variances are those of p(z|x) given all other components."""
        return 0.5 * float(np.sum(np.log(np.diag(self.precision))) - np.linalg.slogdet(self.precision)[1])

    def kl_to_posterior(self, shift: np.ndarray, variances: np.ndarray) -> np.ndarray:
        """KL(N(E[z|x] + shift, diag(variances)) || p(z|x)), the textbook's form; shift `[N, D]`."""
        distance = np.einsum("ni,ij,nj->n", shift, self.precision, shift)
        log_determinants = np.linalg.slogdet(self.precision)[1] + np.sum(np.log(variances))
        return 0.5 * (np.sum(np.diag(self.precision) * variances) + distance - self.latents - log_determinants)

    def vae(self, posterior: str = "diagonal_gaussian") -> VAE:
        """The project's model of this kind."""
        config = ModelConfig(
            network="mlp(hidden=())", likelihood="gaussian(learned=True)", latents=self.latents, posterior=posterior
        )
        return build_model(config, self.shape)

    def variables(
        self, variances: np.ndarray | None = None, shift: float = 0.0, variance: float | None = None
    ) -> Variables:
        """Its variables with q(z|x) = N(E[z|x] + shift, diag(variances)); by default the best diagonal q.

        In the precision that JAX has been set to.
        """
        variances = 1.0 / np.diag(self.precision) if variances is None else variances
        return self._filled(self.vae(), {"logvar": np.log(variances)}, shift, variance)

    def exact_variables(self) -> Variables:
        """Its variables with the full-covariance posterior at p(z|x), for `vae("full_gaussian")`."""
        factor = np.linalg.cholesky(self.covariance)
        below = factor[np.tril_indices(self.latents, -1)]
        return self._filled(self.vae("full_gaussian"), {"log_diagonal": np.log(np.diag(factor)), "below": below})

    def _filled(
        self, model: VAE, constants: dict[str, np.ndarray], shift: float = 0.0, variance: float | None = None
    ) -> Variables:
        """With heads of q(z|x) that depend on no image, but for the mean."""
        tree = {
            "posterior": {
                "mean": {"kernel": self.encoder.T, "bias": shift - self.encoder @ self.bias},
                **{
                    name: {"kernel": np.zeros((len(self.bias), len(values))), "bias": values}
                    for name, values in constants.items()
                },
            },
            "decoder": {"Dense_0": {"kernel": self.weights.T, "bias": self.bias}},
            "likelihood": {"logvar": np.log(self.variance if variance is None else variance)},
        }
        fresh = jax.eval_shape(lambda: init_variables(model, jax.random.key(0), self.shape))["params"]
        precision = jax.dtypes.canonicalize_dtype(np.float64)
        return {"params": jax.tree.map(lambda old, new: jnp.asarray(new, precision).reshape(old.shape), fresh, tree)}
