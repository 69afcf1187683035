"""The model as a scikit-learn estimator.

>>> import numpy as np, vae_jax
>>> X = np.random.default_rng(0).normal(size=(200, 6))
>>> vae = vae_jax.VAETransformer(n_components=2, network="mlp(hidden=(16,))", max_iter=5, random_state=0).fit(X)
>>> vae.transform(X).shape, vae.score_samples(X).shape, vae.sample(3).shape
((200, 2), (200,), (3, 6))

A fitted estimator holds NumPy arrays and plain Python values only. Compiled functions are kept outside it, and
estimators that agree in the model and the shape of a row share them.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from vae_jax.config import Config, TrainConfig
from vae_jax.errors import UserError, check_count
from vae_jax.estimation.compiled import ROWS_AT_ONCE, compiled, compiled_log_likelihood, map_rows, sample_rows, trained
from vae_jax.estimation.fitted import Fitted, new_seed, precision, rows_of
from vae_jax.estimation.parameters import Design, check_continues, config_of, design_of
from vae_jax.estimation.rows import Standard, check_support, content_ids
from vae_jax.memory import check_images_fit
from vae_jax.models import Model, Variables, check_has_density, decode_flat, flat_point, num_latents


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A variational autoencoder (Kingma & Welling, arXiv 1312.6114) as a scikit-learn transformer and density.

    `p(x) = integral p(x|z) p(z) dz` with a decoder network in p(x|z), and an encoder network for q(z|x) that is trained
    with it, by `max E_q[log p(x|z)] - KL(q(z|x) || p(z))`.

    X is `[N, D]` (anything that scikit-learn takes, except sparse matrices), or images `[N, H, W]` or `[N, H, W, C]`.
    Everything is computed in float32. A likelihood of any real numbers sees `(X - mean_) / scale_`, with a mean for
    each column but one scale for all. So training starts near the data, and the model is still a model of X: densities,
    samples and reconstructions are in the units of X. Columns of different units need a `StandardScaler` too.

    Args:
        n_components: Numbers in z.
        network: Encoder and decoder, such as `mlp(hidden=(200,))`; this and the following four are texts of parts,
            `vae-jax parts` lists them.
        likelihood: p(x|z): `gaussian(learned=True)`, `gaussian` or `gaussian_per_pixel` for any numbers, `bernoulli`
            for 0 and 1, `poisson` for counts, `continuous_bernoulli` for [0, 1], `discretized_logistic` or
            `discretized_logistic_mixture` for grey levels `k / max_value`.
        posterior: q(z|x), such as `full_gaussian` or `iaf(flows=2)`.
        prior: p(z), such as `vampprior(components=50)`.
        objective: What is optimized, such as `beta(beta=4.0)` or `iwae(num_samples=5)`.
        batch_size: Rows per step. The last batch of an epoch is filled up with rows that the epoch began with.
        max_iter: Epochs of `fit`.
        learning_rate: Learning rate of the optimizer, Adam unless `options` name another.
        n_likelihood_samples: Importance samples per row of `score_samples`.
        standardize: Whether a likelihood of any real numbers sees standardized X; the standard deviation of `gaussian`
            is then in units of `scale_`.
        image_shape: `(H, W)` or `(H, W, C)` where rows of a `[N, D]` array are such images; None to take the shape
            from X.
        max_value: Largest grey level, for likelihoods of grey levels.
        options: Fields of how it is optimized by their names on the command line: `train.optimizer`, `train.schedule`,
            `train.warmup_steps`, `train.clip_norm`, `train.ema_decay`.
        random_state: A seed, a `RandomState`, or None for NumPy's global one.

    Attributes:
        n_iter_: Epochs since `fit` or the first `partial_fit` began.
        loss_curve_: Mean loss of each of them (for `elbo` minus the bound in nats per row of standardized X).
        mean_: What is subtracted from X: a number for each column.
        scale_: What X is then divided by; both from `fit` or the first `partial_fit`.
        image_shape_: Height, width and channels that the networks see; `(1, D, 1)` for rows that aren't images.
        n_features_in_: Numbers in a row.
        feature_names_in_: Names of X's columns, where it has any.
    """

    def __init__(
        self,
        n_components=10,
        *,
        network="mlp",
        likelihood="gaussian(learned=True)",
        posterior="diagonal_gaussian",
        prior="standard_normal",
        objective="elbo",
        batch_size=100,
        max_iter=100,
        learning_rate=1e-3,
        n_likelihood_samples=100,
        standardize=True,
        image_shape=None,
        max_value=255,
        options=None,
        random_state=None,
    ):
        self.n_components = n_components
        self.network = network
        self.likelihood = likelihood
        self.posterior = posterior
        self.prior = prior
        self.objective = objective
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.n_likelihood_samples = n_likelihood_samples
        self.standardize = standardize
        self.image_shape = image_shape
        self.max_value = max_value
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "VAETransformer":
        """Trains a fresh model for `max_iter` epochs.

        Args:
            X: Rows or images.
            y: Not used.

        Raises:
            ValueError: If scikit-learn doesn't accept X.
            UserError: If parameters don't go together or with X, or the loss isn't finite any more.
        """
        config = config_of(self.get_params(deep=False))
        self._start(X, config, config.train.num_epochs)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> "VAETransformer":
        """Continues training for one epoch over X; with a fresh model if there is none yet. y isn't used.

        Raises:
            ValueError: As `fit`.
            UserError: As `fit`; if parameters of the model were changed; or if the schedule of the learning rate
                has an end.
        """
        config = config_of(self.get_params(deep=False))
        if config.train.schedule != "constant":
            raise UserError(
                f"partial_fit doesn't know the last step, which train.schedule '{config.train.schedule}' needs; leave "
                "it at 'constant', or use fit"
            )
        if not self.__sklearn_is_fitted__():
            self._start(X, config, 1)
            return self
        rows, _ = self._rows(X, reset=False)
        before = self._fitted()
        design = design_of(config, self.image_shape, self.max_value, self._row_shape, len(rows))
        check_continues(before.design, design)
        self._train(design, before.standard, rows, config.train, 1, before)
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n d"]:
        """Means of q(z|x), `[N, n_components]`, in float32 if X is, else in float64."""
        design, standard, _, variables = self._fitted()
        rows, _ = self._rows(X, reset=False)
        encode = compiled(design, flat_point)
        images = standard.of(rows).reshape(-1, *design.image_shape)
        return map_rows(lambda batch, ids: encode(variables, batch), images).astype(precision(rows))

    def inverse_transform(self, X: Any) -> Float[np.ndarray, "n *row"]:
        """Means of p(x|z), in the shape of the fitted rows or images.

        Args:
            X: Latents `[N, n_components]`.

        Raises:
            UserError: If the number of latents is wrong.
        """
        design, standard, _, variables = self._fitted()
        z = check_array(X, input_name="Z", estimator=self)
        if z.shape[1] != self._n_features_out:
            raise UserError(f"the latents have {z.shape[1]} components, but {self._n_features_out} were fitted")
        decode = compiled(design, _means)
        # As images of one row of pixels.
        latents = z.astype(np.float32)[:, np.newaxis, np.newaxis]
        images = map_rows(lambda batch, ids: decode(variables, batch.x[:, 0, 0]), latents)
        return standard.undone(images.reshape(len(z), -1)).reshape(len(z), *self._row_shape).astype(precision(z))

    def score_samples(self, X: Any) -> Float[np.ndarray, "n"]:
        """Estimate of log p(x) of each row, in nats.

        `log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)` with `z_k ~ q(z|x)` and K = `n_likelihood_samples`. Its expectation
        is below log p(x), and rises to it with K. Its noise is a function of the row and the seed: the score of a row
        doesn't depend on its place or on other rows.

        Args:
            X: Rows or images.

        Raises:
            UserError: If the likelihood isn't a density of such values, or the posterior has no density.
        """
        design, standard, seed, variables = self._fitted()
        num_samples = config_of(self.get_params(deep=False)).evaluate.num_samples
        rows, _ = self._rows(X, reset=False)
        check_has_density(design.model)
        standardized = standard.of(rows)
        check_support(design, standardized)
        estimate, content = compiled_log_likelihood(design, num_samples), content_ids(standardized)
        scores = map_rows(
            lambda batch, ids: estimate(variables, batch, content[np.asarray(ids)], seed),
            standardized.reshape(-1, *design.image_shape),
        )
        # The density of X is that of standardized X times the determinant of standardizing.
        return scores.astype(np.float64) - rows.shape[1] * math.log(standard.scale)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`; y isn't used."""
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int | np.integer = 1, random_state: Any = None) -> Float[np.ndarray, "n *row"]:
        """Rows or images drawn from p(x): z from the prior, then x from p(x|z), with its noise.

        Args:
            n_samples: How many.
            random_state: The source of randomness; the estimator's `random_state` if None.

        Raises:
            UserError: If the model has no distribution, or `n_samples` is below 1.
        """
        design, standard, _, variables = self._fitted()
        check_count("n_samples", n_samples)
        check_has_density(design.model)
        check_images_fit(int(n_samples), self._row_shape)
        draw = compiled(design, sample_rows)
        seed = new_seed(self.random_state if random_state is None else random_state)
        batches = [np.asarray(draw(variables, seed, np.int32(i))) for i in range(-(-n_samples // ROWS_AT_ONCE))]
        images = np.concatenate(batches)[:n_samples]
        return standard.undone(images.reshape(n_samples, -1)).reshape(n_samples, *self._row_shape)

    @property
    def variables_(self) -> Variables:
        """Variables of the model, as the functions of `vae_jax` take them: nested dictionaries of arrays."""
        return self._fitted().variables

    @property
    def model_(self) -> Model:
        """The model that belongs to `variables_`."""
        return self._fitted().design.model

    @property
    def _n_features_out(self) -> int:
        return num_latents(self.model_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_iter_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _rows(self, X: Any, reset: bool) -> tuple[np.ndarray, tuple[int, ...]]:
        return rows_of(self, X, None if reset else self._row_shape)

    def _start(self, X: Any, config: Config, num_epochs: int) -> None:
        """Trains a fresh model."""
        rows, row_shape = self._rows(X, reset=True)
        design = design_of(config, self.image_shape, self.max_value, row_shape, len(rows))
        standardize = self.standardize and "real" in design.model.support
        standard = Standard.fitted_to(rows) if standardize else Standard(np.zeros(rows.shape[1]), 1.0)
        self._train(design, standard, rows, config.train, num_epochs, None)
        self._row_shape, (self.mean_, self.scale_) = row_shape, standard

    def _train(
        self,
        design: Design,
        standard: Standard,
        rows: np.ndarray,
        train: TrainConfig,
        num_epochs: int,
        before: Fitted | None,
    ) -> None:
        """Trains from the start, or from where training stands."""
        standardized = standard.of(rows)
        check_support(design, standardized)
        if before is None:
            seed, epochs_before, curve, leaves = new_seed(self.random_state), 0, [], None
        else:
            seed, epochs_before, curve, leaves = before.seed, self.n_iter_, self.loss_curve_, self._state
        state, losses = trained(design, train, standardized, seed, epochs_before, num_epochs, leaves)
        self.n_iter_ = epochs_before + num_epochs
        self.loss_curve_ = [*curve, *losses]
        self.image_shape_ = design.image_shape
        self._design, self._seed = dataclasses.asdict(design), int(seed)
        self._state, self._variables = jax.tree.leaves(state), state.evaluated

    def _fitted(self) -> Fitted:
        """The result of `fit`, made from the plain values that the estimator holds."""
        check_is_fitted(self)
        standard = Standard(self.mean_, self.scale_)
        return Fitted(Design.from_plain(self._design), standard, np.uint32(self._seed), self._variables)


def _means(model: Model, variables: Variables, z: Any) -> Any:
    return decode_flat(model, variables, z).mean()
