"""The model as a scikit-learn estimator.

>>> import numpy as np, vae_jax
>>> X = np.random.default_rng(0).normal(size=(200, 6))
>>> vae = vae_jax.VAETransformer(n_components=2, hidden=(16,), max_iter=5, random_state=0).fit(X)
>>> vae.transform(X).shape, vae.score_samples(X).shape, vae.sample(3).shape
((200, 2), (200,), (3, 6))

A fitted estimator holds NumPy arrays and plain Python values only. Compiled functions are kept beside it, by what the
model is and the shape of a row, so that estimators which agree in both share them.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from vae_jax.build import build_optimizer, check_objective
from vae_jax.config import Config, TrainConfig, flatten, from_mapping
from vae_jax.errors import UserError, check_count
from vae_jax.estimation.design import (
    FIELDS,
    Design,
    check_continues,
    check_has_density,
    image_shape_of,
    in_words_of_parameters,
    reads_num_rows,
)
from vae_jax.estimation.programs import (
    ROWS_AT_ONCE,
    batch_order,
    by_batches,
    importance_program,
    measuring_programs,
    run_steps,
    state_shapes,
    training_programs,
)
from vae_jax.estimation.rows import Standard, Table, check_is_density, check_is_in_range, content_ids, precision_of
from vae_jax.memory import check_images_fit
from vae_jax.training import TrainState
from vae_jax.vae import VAE, Params

_OF_TRAINING = ("optimizer", "schedule", "warmup_steps", "adam_epsilon", "clip_norm", "ema_decay")


# Fields that can be set through `options`. There are no labels to condition on.
_OPTIONS = [
    name
    for name, _, _ in flatten(Config())
    if name.startswith(("model.", "objective.", *(f"train.{field}" for field in _OF_TRAINING)))
    and name not in (*FIELDS.values(), "model.conditional")
]


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A variational autoencoder as a scikit-learn transformer and density.

    `p(x) = integral p(x|z) p(z) dz` with a decoder network in p(x|z), and an encoder network for q(z|x) that is trained
    with it, by `max E_q[log p(x|z)] - KL(q(z|x) || p(z))`.

    X is `[N, D]` (anything that scikit-learn takes, but no sparse matrices), or images `[N, H, W]` or `[N, H, W, C]`.
    Everything is computed in float32. A likelihood of any real numbers sees `(X - mean_) / scale_`, with a mean for
    each column but one scale for all, so that the model is that of X with other weights, and training starts near the
    data; densities, samples and reconstructions are those of X again. Columns of different units need a
    `StandardScaler` nevertheless.

    Args:
        n_components: Numbers in z.
        hidden: Widths of the encoder's layers (mlp) or channels of its stages (conv, resnet); the decoder mirrors them.
        network: `mlp`, `conv` or `resnet`.
        likelihood: p(x|z): `gaussian_learned`, `gaussian` or `gaussian_per_pixel` for any numbers, `bernoulli` for 0
            and 1, `continuous_bernoulli` for [0, 1], `discretized_logistic` or `discretized_logistic_mixture` for grey
            levels `k / max_value`. `bernoulli` can be trained on all of [0, 1], but is no density there, so that there
            is no `score_samples`.
        posterior: q(z|x): `diagonal_gaussian`, `full_gaussian`, `planar`, `iaf`, `hierarchical` or `point_mass`.
        prior: p(z): `standard_normal`, `mixture`, `vampprior`, `realnvp` or `hierarchical`.
        objective: What is optimized: `elbo`, `beta`, `iwae`, ...
        num_samples: Samples of z per row and step.
        batch_size: Rows per step. The last batch of an epoch is filled up with rows that the epoch began with.
        max_iter: Epochs of `fit`.
        learning_rate: Of the optimizer, Adam unless `options` name another.
        n_likelihood_samples: Importance samples per row of `score_samples`.
        standardize: Whether a likelihood of any real numbers sees standardized X; the standard deviation of `gaussian`
            is in units of `scale_` then.
        image_shape: `(H, W)` or `(H, W, C)` where rows of a `[N, D]` array are such images; None to take the shape
            from X.
        max_value: Largest grey level, for likelihoods of grey levels.
        options: Any other field of the config's model, objective and optimizer by its name on the command line, e.g.
            `{"objective.beta": 4.0, "model.prior_components": 50, "train.schedule": "cosine"}`.
        random_state: A seed, a `RandomState`, or None for NumPy's own.

    Attributes:
        n_iter_: Epochs since `fit` or the first `partial_fit` began.
        loss_curve_: Mean loss of each of them (for `elbo` minus the bound in nats per row of standardized X).
        mean_: What is subtracted from X: a number for each column.
        scale_: What X is divided by then; both from `fit` or the first `partial_fit`.
        image_shape_: Height, width and channels that the networks see; `(1, D, 1)` for rows that are no images.
        n_features_in_: Numbers in a row.
        feature_names_in_: Names of X's columns, where it has any.

    Source:
        Kingma & Welling, arXiv 1312.6114.
    """

    def __init__(
        self,
        n_components=10,
        *,
        hidden=(200,),
        network="mlp",
        likelihood="gaussian_learned",
        posterior="diagonal_gaussian",
        prior="standard_normal",
        objective="elbo",
        num_samples=1,
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
        self.hidden = hidden
        self.network = network
        self.likelihood = likelihood
        self.posterior = posterior
        self.prior = prior
        self.objective = objective
        self.num_samples = num_samples
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
            ValueError: If X is none of what scikit-learn takes.
            UserError: If parameters don't go together or with X, or the loss stops being a finite number.
        """
        config = self._config()
        table = self._table(X, reset=True)
        design = self._design(config, table.row_shape, len(table.values))
        self._train(design, None, table, config.train, config.train.num_epochs)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> "VAETransformer":
        """One epoch over X, from where training stands; with a fresh model if it hasn't begun.

        Args:
            X: Rows or images like those before.
            y: Not used.

        Raises:
            ValueError: As `fit`.
            UserError: As `fit`; if parameters of the model were changed; or if the schedule of the learning rate
                has an end.
        """
        config = self._config()
        if config.train.schedule != "constant":
            raise UserError(
                f"partial_fit has no last step for train.schedule '{config.train.schedule}' to head for; leave it at "
                "'constant', or use fit"
            )
        begun = self.__sklearn_is_fitted__()
        table = self._table(X, reset=not begun)
        before = self._fitted() if begun else None
        design = self._design(config, self._row_shape if begun else table.row_shape, len(table.values))
        if before is not None:
            check_continues(before.design, design)
        self._train(design, before, table, config.train, 1)
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n d"]:
        """Means of q(z|x), `[N, n_components]`, in float32 if X is, else in float64."""
        fitted = self._fitted()
        table = self._table(X, reset=False)
        encode = measuring_programs(fitted.design.model_key).encode
        means = by_batches(lambda rows: encode(fitted.params, rows), fitted.standard.of(table.values))
        return means.astype(precision_of(table.values))

    def inverse_transform(self, X: Any) -> Float[np.ndarray, "n *row"]:
        """Means of p(x|z), in the shape of what was fitted.

        Args:
            X: Latents `[N, n_components]`.

        Raises:
            UserError: If they are more or fewer.
        """
        fitted = self._fitted()
        z = check_array(X, input_name="Z", estimator=self)
        if z.shape[1] != self._n_features_out:
            raise UserError(f"the latents have {z.shape[1]} components, but {self._n_features_out} were fitted")
        decode = measuring_programs(fitted.design.model_key).decode
        rows = by_batches(lambda z: decode(fitted.params, z), z.astype(np.float32))
        return fitted.standard.undone(rows).reshape(len(z), *self._row_shape).astype(precision_of(z))

    def score_samples(self, X: Any) -> Float[np.ndarray, "n"]:
        """Estimate of log p(x) of each row, in nats.

        `log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x)` with `z_k ~ q(z|x)` and K = `n_likelihood_samples`. In expectation it
        is below log p(x), and rises to it with K. Its noise is a function of the row and the model's seed: neither the
        place of a row nor its neighbours change it.

        Args:
            X: Rows or images.

        Raises:
            UserError: If the likelihood is no density of such values, or the posterior has none.
        """
        fitted = self._fitted()
        num_samples = self._config().evaluate.num_samples
        table = self._table(X, reset=False)
        check_has_density(fitted.design.model)
        rows = fitted.standard.of(table.values)
        check_is_density(fitted.design, rows)
        estimate = importance_program(fitted.design.model_key, num_samples)
        standardized = by_batches(
            lambda rows, ids: estimate(fitted.params, rows, ids, fitted.seed), rows, content_ids(rows)
        )
        # The density of X is that of standardized X times the determinant of standardizing.
        return standardized.astype(np.float64) - rows.shape[1] * math.log(self.scale_)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of `score_samples`.

        Args:
            X: Rows or images.
            y: Not used.
        """
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples: int | np.integer = 1, random_state: Any = None) -> Float[np.ndarray, "n *row"]:
        """Rows or images drawn from p(x): z from the prior, then x from p(x|z), with its noise.

        Args:
            n_samples: How many.
            random_state: What they are drawn from; the estimator's own if None.

        Raises:
            UserError: If the model is no distribution, or `n_samples` is below 1.
        """
        fitted = self._fitted()
        check_count("n_samples", n_samples)
        check_has_density(fitted.design.model)
        check_images_fit(int(n_samples), self._row_shape)
        draw = measuring_programs(fitted.design.model_key).draw
        seed = _seed(self.random_state if random_state is None else random_state)
        batches = [np.asarray(draw(fitted.params, seed, np.int32(i))) for i in range(-(-n_samples // ROWS_AT_ONCE))]
        rows = np.concatenate(batches)[:n_samples]
        return fitted.standard.undone(rows).reshape(n_samples, *self._row_shape)

    @property
    def params_(self) -> Params:
        """Parameters of the model as `vae_jax.encode` and its like take them: nested dictionaries of arrays."""
        return self._fitted().params

    @property
    def model_(self) -> VAE:
        """The model that belongs to `params_`."""
        return self._fitted().design.model

    @property
    def _n_features_out(self) -> int:
        return self._fitted().design.model.posterior.latents

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_iter_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _config(self) -> Config:
        """The parameters as a config."""
        options = self.options or {}
        if not isinstance(options, Mapping):
            raise UserError(f"options is {options!r} but must be names and values, e.g. {{'objective.beta': 4.0}}")
        for name in options:
            if name in FIELDS.values():
                parameter = next(parameter for parameter, field in FIELDS.items() if field == name)
                raise UserError(f"options has '{name}', which is the parameter {parameter}; set that instead")
            if name not in _OPTIONS:
                raise UserError(f"options has '{name}'; choose from {', '.join(_OPTIONS)}")
        values = {field: getattr(self, parameter) for parameter, field in FIELDS.items()} | dict(options)
        sections: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            section, _, field = name.partition(".")
            sections.setdefault(section, {})[field] = _plain(value)
        with in_words_of_parameters():
            config = from_mapping(sections)
        return config

    def _table(self, X: Any, reset: bool) -> "Table":
        """X as rows of numbers."""
        row_shape = None
        if (X if hasattr(X, "ndim") else np.asarray(X)).ndim > 2:
            images = check_array(X, allow_nd=True, input_name="X", estimator=self)
            row_shape, X = images.shape[1:], images.reshape(len(images), -1)
        X = validate_data(self, X, reset=reset)
        row_shape = row_shape or X.shape[1:]
        if not reset and row_shape not in (self._row_shape, X.shape[1:]):
            raise UserError(f"X has images of shape {row_shape}, but the fitted ones are of {self._row_shape}")
        return Table(X, row_shape)

    def _design(self, config: Config, row_shape: tuple[int, ...], num_rows: int) -> "Design":
        """What is to be trained, once all was found to go together."""
        shape = image_shape_of(_plain(self.image_shape), row_shape)
        max_value = _plain(self.max_value)
        if type(max_value) is not int or max_value < 1:
            raise UserError(f"max_value is {self.max_value!r} but must be a whole number of at least 1")
        # What isn't part of the compiled functions is as always, so that it doesn't tell them apart.
        always = TrainConfig()
        train = dataclasses.replace(
            config.train,
            batch_size=always.batch_size,
            num_epochs=always.num_epochs,
            learning_rate=always.learning_rate,
        )
        design = Design(Config(model=config.model, objective=config.objective, train=train), shape, max_value)
        with in_words_of_parameters():
            check_objective(config, design.model, num_rows, design.image_shape)
            build_optimizer(config, num_steps=1)
        return design

    def _train(
        self, design: "Design", before: "_Fitted | None", table: "Table", train: TrainConfig, num_epochs: int
    ) -> None:
        takes_any = "real" in design.model.likelihood.support
        standard = before.standard if before else Standard.fitted_to(table.values, takes_any and self.standardize)
        rows = standard.of(table.values)
        if not takes_any:
            check_is_in_range(design, rows)
        steps_per_epoch = -(-len(rows) // train.batch_size)
        has_end = train.schedule != "constant"
        training = training_programs(
            design,
            num_steps=steps_per_epoch * num_epochs if has_end else 1,
            steps_per_epoch=steps_per_epoch if has_end else 1,
            num_rows=len(rows) if reads_num_rows(design.config) else 0,
        )
        seed = _seed(self.random_state) if before is None else before.seed
        # A copy: the state that goes into a step is used up by it.
        state = training.initial(seed) if before is None else jax.tree.map(jnp.array, before.state)
        epochs_before, curve = (0, []) if before is None else (self.n_iter_, self.loss_curve_)
        order = batch_order(int(seed), epochs_before, num_epochs, len(rows), train.batch_size)
        state, losses = run_steps(training, state, rows, order, seed, np.float32(train.learning_rate))
        losses = losses.reshape(num_epochs, steps_per_epoch).mean(axis=1)

        self.n_iter_ = epochs_before + num_epochs
        self.loss_curve_ = [*curve, *losses.tolist()]
        self.image_shape_ = design.image_shape
        if before is None:
            self._row_shape = table.row_shape
            self.mean_, self.scale_ = standard.mean, standard.scale
        self._design_saved = design.to_plain()
        self._seed_saved = int(seed)
        self._arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]

    def _fitted(self) -> "_Fitted":
        """What `fit` left, from the plain values that it is kept in."""
        check_is_fitted(self)
        design = Design.from_plain(self._design_saved)
        structure = jax.tree.structure(state_shapes(design))
        state = jax.tree.unflatten(structure, self._arrays)
        return _Fitted(design, Standard(self.mean_, self.scale_), np.uint32(self._seed_saved), state)


class _Fitted(NamedTuple):
    design: Design
    standard: Standard
    seed: np.uint32
    state: TrainState

    @property
    def params(self) -> Params:
        return self.state.evaluated_params


def _seed(random_state: Any) -> np.uint32:
    return np.uint32(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _plain(value: Any) -> Any:
    """NumPy's numbers and any sequence as Python's own: a grid of parameters may consist of either."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(_plain(item) for item in value) if isinstance(value, list | tuple | np.ndarray) else value
