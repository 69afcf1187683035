"""The model as a scikit-learn estimator.

>>> import numpy as np, vae_jax
>>> X = np.random.default_rng(0).normal(size=(200, 6))
>>> vae = vae_jax.VAETransformer(n_components=2, hidden=(16,), max_iter=5, random_state=0).fit(X)
>>> vae.transform(X).shape, vae.score_samples(X).shape, vae.sample(3).shape
((200, 2), (200,), (3, 6))

A fitted estimator holds NumPy arrays and plain Python values only. Compiled functions are kept beside it, by what the
model is and the shape of a row, so that estimators which agree in both share them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from vae_jax.build import build_loss, build_model, build_optimizer, check_objective, steps_in_one_call
from vae_jax.build.objective import OBJECTIVES
from vae_jax.build.registry import make
from vae_jax.config import Config, ModelConfig, TrainConfig, differences, flatten, from_mapping
from vae_jax.errors import UserError
from vae_jax.evaluation import make_importance_estimate, samples_at_once
from vae_jax.keys import Stream, epoch_order, stream_key
from vae_jax.training import TrainState, create_state, make_optimizer, make_train_step
from vae_jax.vae import VAE, Params, apply, init_params

ImageShape = tuple[int, int, int]

# Parameters that are fields of the config, and how the command line calls them.
_FIELDS = {
    "n_components": "model.latents",
    "network": "model.network",
    "hidden": "model.hidden",
    "likelihood": "model.likelihood",
    "posterior": "model.posterior",
    "prior": "model.prior",
    "objective": "objective.name",
    "num_samples": "objective.num_samples",
    "batch_size": "train.batch_size",
    "max_iter": "train.num_epochs",
    "learning_rate": "train.learning_rate",
    "n_likelihood_samples": "evaluate.num_samples",
}
_OF_TRAINING = ("optimizer", "schedule", "warmup_steps", "adam_epsilon", "clip_norm", "ema_decay")
# Fields that can be set through `options`. There are no labels to condition on.
_OPTIONS = [
    name
    for name, _, _ in flatten(Config())
    if name.startswith(("model.", "objective.", *(f"train.{field}" for field in _OF_TRAINING)))
    and name not in (*_FIELDS.values(), "model.conditional")
]
# Always so many rows in a call, so that the bits of a row depend on no others, and one program serves all.
_ROWS_AT_ONCE = 128
# What goes to the device for one call, in numbers and in steps.
_NUMBERS_IN_CHUNK, _STEPS_IN_CHUNK = 2**22, 256
# Compiled functions of so many different models are kept.
_KEPT = 64


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
            _check_continues(before.design, design)
        self._train(design, before, table, config.train, 1)
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n d"]:
        """Means of q(z|x), `[N, n_components]`, in float32 if X is, else in float64."""
        fitted = self._fitted()
        table = self._table(X, reset=False)
        encode = _measures(fitted.design.model_key).encode
        means = _by_batches(lambda rows: encode(fitted.params, rows), fitted.standard.of(table.values))
        return means.astype(_precision(table.values))

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
        decode = _measures(fitted.design.model_key).decode
        rows = _by_batches(lambda z: decode(fitted.params, z), z.astype(np.float32))
        return fitted.standard.undone(rows).reshape(len(z), *self._row_shape).astype(_precision(z))

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
        _check_has_density(fitted.design.model)
        rows = fitted.standard.of(table.values)
        _check_is_density(fitted.design, rows)
        estimate = _importance_estimate(fitted.design.model_key, num_samples)
        standardized = _by_batches(
            lambda rows, ids: estimate(fitted.params, rows, ids, fitted.seed), rows, _content_ids(rows)
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
        if n_samples < 1:
            raise UserError(f"n_samples is {n_samples} but must be at least 1")
        _check_has_density(fitted.design.model)
        draw = _measures(fitted.design.model_key).draw
        seed = _seed(self.random_state if random_state is None else random_state)
        batches = [np.asarray(draw(fitted.params, seed, np.int32(i))) for i in range(-(-n_samples // _ROWS_AT_ONCE))]
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
            if name in _FIELDS.values():
                parameter = next(parameter for parameter, field in _FIELDS.items() if field == name)
                raise UserError(f"options has '{name}', which is the parameter {parameter}; set that instead")
            if name not in _OPTIONS:
                raise UserError(f"options has '{name}'; choose from {', '.join(_OPTIONS)}")
        values = {field: getattr(self, parameter) for parameter, field in _FIELDS.items()} | dict(options)
        sections: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            section, _, field = name.partition(".")
            sections.setdefault(section, {})[field] = _plain(value)
        with _in_words_of_parameters():
            config = from_mapping(sections)
        if config.model.likelihood == "mse" and config.model.mse_kl_weight == 0.0:
            raise UserError("model.mse_kl_weight must be above 0 here; set it to batch_size / number of rows")
        return config

    def _table(self, X: Any, reset: bool) -> "_Table":
        """X as rows of numbers."""
        row_shape = None
        if (X if hasattr(X, "ndim") else np.asarray(X)).ndim > 2:
            images = check_array(X, allow_nd=True, input_name="X", estimator=self)
            row_shape, X = images.shape[1:], images.reshape(len(images), -1)
        X = validate_data(self, X, reset=reset)
        row_shape = row_shape or X.shape[1:]
        if not reset and row_shape not in (self._row_shape, X.shape[1:]):
            raise UserError(f"X has images of shape {row_shape}, but the fitted ones are of {self._row_shape}")
        return _Table(X, row_shape)

    def _design(self, config: Config, row_shape: tuple[int, ...], num_rows: int) -> "_Design":
        """What is to be trained, once all was found to go together."""
        shape = _image_shape(_plain(self.image_shape), row_shape)
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
        design = _Design(Config(model=config.model, objective=config.objective, train=train), shape, max_value)
        with _in_words_of_parameters():
            check_objective(config, design.model, num_rows)
            build_optimizer(config, num_steps=1)
        return design

    def _train(
        self, design: "_Design", before: "_Fitted | None", table: "_Table", train: TrainConfig, num_epochs: int
    ) -> None:
        takes_any = "real" in design.model.likelihood.fits
        standard = before.standard if before else _Standard.fitted_to(table.values, takes_any and self.standardize)
        rows = standard.of(table.values)
        if not takes_any:
            _check_is_in_range(design, rows)
        steps_per_epoch = -(-len(rows) // train.batch_size)
        has_end = train.schedule != "constant"
        training = _training(
            design,
            num_steps=steps_per_epoch * num_epochs if has_end else 1,
            steps_per_epoch=steps_per_epoch if has_end else 1,
            num_rows=len(rows) if _reads_num_rows(design.config) else 0,
        )
        seed = _seed(self.random_state) if before is None else before.seed
        # A copy: the state that goes into a step is used up by it.
        state = training.initial(seed) if before is None else jax.tree.map(jnp.array, before.state)
        epochs_before, curve = (0, []) if before is None else (self.n_iter_, self.loss_curve_)
        order = _order(int(seed), epochs_before, num_epochs, len(rows), train.batch_size)
        state, losses = _run(training, state, rows, order, seed, np.float32(train.learning_rate))
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
        design = _Design.from_plain(self._design_saved)
        structure = jax.tree.structure(_state_shapes(design))
        state = jax.tree.unflatten(structure, self._arrays)
        return _Fitted(design, _Standard(self.mean_, self.scale_), np.uint32(self._seed_saved), state)


@dataclasses.dataclass(frozen=True)
class _Table:
    """X as rows of numbers.

    Attributes:
        values: Of any type of number.
        row_shape: Of a row as it was brought along: `(D,)`, `(H, W)` or `(H, W, C)`.
    """

    values: Shaped[np.ndarray, "n p"]
    row_shape: tuple[int, ...]


class _Standard(NamedTuple):
    """`(values - mean) / scale`."""

    mean: Float[np.ndarray, "p"]
    scale: float

    @classmethod
    def fitted_to(cls, values: Shaped[np.ndarray, "n p"], wanted: bool) -> "_Standard":
        """Standardizes those values on the whole; changes nothing if that isn't wanted."""
        if not wanted:
            return cls(np.zeros(values.shape[1]), 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = values.mean(axis=0, dtype=np.float64)
            variance = float(np.mean(np.square(values - mean)))
        return cls(mean, math.sqrt(variance) if variance > 0.0 else 1.0)

    def of(self, values: Shaped[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"]:
        """In float32; subtracted in the precision of the values, which may be large beside their differences."""
        precision = np.result_type(values.dtype, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            rows = np.subtract(values, self.mean.astype(precision), dtype=precision) / precision.type(self.scale)
            rows = np.ascontiguousarray(rows, np.float32)
        if not (math.isfinite(self.scale) and np.isfinite(rows).all()):
            raise UserError("X has values too large to compute with in float32; scale it, e.g. by RobustScaler")
        return rows

    def undone(self, rows: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "n p"]:
        return rows * self.scale + self.mean


class _ModelKey(NamedTuple):
    """All that a model follows from."""

    config: ModelConfig
    image_shape: ImageShape
    max_value: int


@dataclasses.dataclass(frozen=True)
class _Design:
    """All that tells one training program from another, but for the end of a schedule."""

    config: Config
    image_shape: ImageShape
    max_value: int

    @property
    def model_key(self) -> _ModelKey:
        return _ModelKey(self.config.model, self.image_shape, self.max_value)

    @property
    def model(self) -> VAE:
        with _in_words_of_parameters():
            return _model(self.model_key)

    def to_plain(self) -> dict[str, Any]:
        """As what a pickle can hold without a class of this package."""
        sections = {name: dataclasses.asdict(getattr(self.config, name)) for name in ("model", "objective", "train")}
        return {"config": sections, "image_shape": self.image_shape, "max_value": self.max_value}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "_Design":
        return cls(from_mapping(plain["config"]), plain["image_shape"], plain["max_value"])


class _Fitted(NamedTuple):
    design: _Design
    standard: _Standard
    seed: np.uint32
    state: TrainState

    @property
    def params(self) -> Params:
        return self.state.evaluated_params


class _Training(NamedTuple):
    """Compiled functions that train.

    Attributes:
        initial: `(seed) -> state`.
        steps: `(state, rows [S, B, P], how many of the S, seed, learning rate) -> (state, loss of each step)`.
    """

    initial: Callable[..., TrainState]
    steps: Callable[..., tuple[TrainState, Float[Array, "s"]]]


class _Measures(NamedTuple):
    """Compiled functions of a model's parameters: of rows, of latents, and of (seed, number of the batch)."""

    encode: Callable[..., Float[Array, "b d"]]
    decode: Callable[..., Float[Array, "b p"]]
    draw: Callable[..., Float[Array, "b p"]]


@functools.lru_cache(maxsize=_KEPT)
def _model(key: _ModelKey) -> VAE:
    return build_model(key.config, key.image_shape, key.max_value)


@functools.lru_cache(maxsize=_KEPT)
def _state_shapes(design: _Design) -> TrainState:
    return jax.eval_shape(_training(design, 1, 1, 0).initial, np.uint32(0))


@functools.lru_cache(maxsize=_KEPT)
def _training(design: _Design, num_steps: int, steps_per_epoch: int, num_rows: int) -> _Training:
    model, train = design.model, design.config.train
    loss_function = build_loss(design.config, model, num_rows)

    def optimizer(learning_rate: Any) -> Any:
        return make_optimizer(
            train.optimizer,
            learning_rate,
            num_steps,
            train.schedule,
            train.warmup_steps,
            train.clip_norm,
            train.adam_epsilon,
            steps_per_epoch,
        )

    @jax.jit
    def initial(seed: Any) -> TrainState:
        params = init_params(model, stream_key(jax.random.key(seed), Stream.PARAMETERS), design.image_shape)
        return _strongly_typed(create_state(params, optimizer(train.learning_rate), train.ema_decay > 0))

    def step(state: TrainState, rows: Any, seed: Any, learning_rate: Any) -> tuple[TrainState, Any]:
        # The rate is an argument of the program, so the optimizer is made inside it.
        train_step = make_train_step(loss_function, optimizer(learning_rate), lambda x, key: x, train.ema_decay)
        state, metrics = train_step(state, rows.reshape(-1, *design.image_shape), jax.random.key(seed))
        return _strongly_typed(state), metrics["loss"]

    def loop(state: TrainState, chunk: Any, num_steps: Any, seed: Any, learning_rate: Any) -> tuple[TrainState, Any]:
        def body(i: Any, carry: tuple[TrainState, Any]) -> tuple[TrainState, Any]:
            state, loss = step(carry[0], chunk[i], seed, learning_rate)
            return state, carry[1].at[i].set(loss)

        return jax.lax.fori_loop(0, num_steps, body, (state, jnp.zeros(len(chunk))))

    if steps_in_one_call(model):
        return _Training(initial, jax.jit(loop, donate_argnums=0))
    compiled_step = jax.jit(step, donate_argnums=0)

    def one_by_one(state: TrainState, chunk: Any, num_steps: Any, seed: Any, learning_rate: Any) -> Any:
        losses = []
        for rows in chunk[:num_steps]:
            state, loss = compiled_step(state, rows, seed, learning_rate)
            losses.append(loss)
        return state, np.array(losses, np.float32)

    return _Training(initial, one_by_one)


def _strongly_typed(state: TrainState) -> TrainState:
    """The same without JAX's weak types, which NumPy doesn't have: for each kind a program would be compiled anew."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)


@functools.lru_cache(maxsize=_KEPT)
def _measures(key: _ModelKey) -> _Measures:
    model = _model(key)

    def flat(images: Float[Array, "b h w c"]) -> Float[Array, "b p"]:
        return images.reshape(len(images), -1)

    @jax.jit
    def encode(params: Params, rows: Any) -> Any:
        return apply(model, params, "posterior_mean", rows.reshape(-1, *key.image_shape))

    @jax.jit
    def decode(params: Params, z: Any) -> Any:
        return flat(apply(model, params, "decode_mean", z))

    @jax.jit
    def draw(params: Params, seed: Any, number: Any) -> Any:
        root = jax.random.key(seed)
        z = apply(model, params, "sample_prior", stream_key(root, Stream.SAMPLES, 2 * number), _ROWS_AT_ONCE)
        return flat(apply(model, params, "decode_sample", z, stream_key(root, Stream.SAMPLES, 2 * number + 1)))

    return _Measures(encode, decode, draw)


@functools.lru_cache(maxsize=_KEPT)
def _importance_estimate(key: _ModelKey, num_samples: int) -> Callable[..., Float[Array, "b"]]:
    model = _model(key)
    at_once = samples_at_once(model, key.image_shape, _ROWS_AT_ONCE, Config().evaluate.memory_mb)
    estimate = make_importance_estimate(model, num_samples, min(num_samples, at_once))

    @jax.jit
    def log_likelihood(params: Params, rows: Any, ids: Any, seed: Any) -> Any:
        noise_key = stream_key(jax.random.key(seed), Stream.EVALUATION)
        return estimate(params, rows.reshape(-1, *key.image_shape), ids, noise_key).log_likelihood

    return log_likelihood


def _run(
    training: _Training,
    state: TrainState,
    rows: Float[np.ndarray, "n p"],
    order: Iterator[Int[np.ndarray, "b"]],
    seed: np.uint32,
    learning_rate: np.float32,
) -> tuple[TrainState, Float[np.ndarray, "s"]]:
    """Trains on one batch after the other; one that isn't finite ends it."""
    found: list[np.ndarray] = []

    def read(losses: Any, count: int) -> None:
        # While the device is busy with the next chunk already, but not with more: each takes memory.
        found.append(np.asarray(losses)[:count])
        if not np.isfinite(found[-1]).all():
            raise UserError(
                "the loss is no finite number any more; scale X first, e.g. by StandardScaler, or lower learning_rate"
            )

    waiting = None
    for chunk, count in _chunks(rows, order):
        state, losses = training.steps(state, chunk, np.int32(count), seed, learning_rate)
        if waiting is not None:
            read(*waiting)
        waiting = losses, count
    if waiting is not None:
        read(*waiting)
    return state, np.concatenate(found)


def _chunks(
    rows: Float[np.ndarray, "n p"], order: Iterator[Int[np.ndarray, "b"]]
) -> Iterator[tuple[Float[np.ndarray, "s b p"], int]]:
    """Consecutive batches in arrays of one size, and how many there are in each."""
    while True:
        first = next(order, None)
        if first is None:
            return
        longest = min(_STEPS_IN_CHUNK, max(1, _NUMBERS_IN_CHUNK // (len(first) * rows.shape[1])))
        indices = np.stack([first, *itertools.islice(order, longest - 1)])
        chunk = np.zeros((longest, len(first), rows.shape[1]), np.float32)
        chunk[: len(indices)] = rows[indices]
        yield chunk, len(indices)


def _order(
    seed: int, first_epoch: int, num_epochs: int, num_rows: int, batch_size: int
) -> Iterator[Int[np.ndarray, "b"]]:
    """Which rows make up each batch: every row once an epoch, and to fill the last batch its first ones again."""
    steps = -(-num_rows // batch_size)
    for epoch in range(first_epoch, first_epoch + num_epochs):
        yield from np.resize(epoch_order(seed, epoch, num_rows), (steps, batch_size))


def _by_batches(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    """Applies a compiled function to always equally many rows. The last batch repeats its last one."""
    parts = []
    for start in range(0, len(arrays[0]), _ROWS_AT_ONCE):
        indices = np.minimum(np.arange(start, start + _ROWS_AT_ONCE), len(arrays[0]) - 1)
        parts.append(np.asarray(function(*(array[indices] for array in arrays))))
    return np.concatenate(parts)[: len(arrays[0])]


def _content_ids(rows: Float[np.ndarray, "n p"]) -> Int[np.ndarray, "n"]:
    """A number for each row that follows from what is in it."""
    # Adding zero makes the zero with a sign, which is equal, the same.
    digests = [hashlib.blake2b(row.tobytes(), digest_size=4).digest() for row in rows + np.float32(0)]
    return np.frombuffer(b"".join(digests), "<i4").astype(np.int32)


def _image_shape(wanted: Any, row_shape: tuple[int, ...]) -> ImageShape:
    """Height, width and channels of what the networks see."""
    if wanted is None:
        if len(row_shape) > 3:
            raise UserError(f"X has rows of shape {row_shape}; give [N, D], [N, H, W] or [N, H, W, C]")
        height, width, channels = (1, *row_shape, 1) if len(row_shape) == 1 else (*row_shape, 1)[:3]
        return height, width, channels
    is_shape = isinstance(wanted, tuple) and len(wanted) in (2, 3)
    if not is_shape or not all(type(size) is int and size > 0 for size in wanted):
        raise UserError(f"image_shape is {wanted!r} but must be (H, W) or (H, W, C)")
    if math.prod(wanted) != math.prod(row_shape):
        raise UserError(
            f"image_shape {wanted} is {math.prod(wanted)} numbers, but X has {math.prod(row_shape)} in a row"
        )
    height, width, channels = (*wanted, 1)[:3]
    return height, width, channels


def _kinds(rows: Float[np.ndarray, "n p"], max_value: int) -> frozenset[str]:
    """What the values are, in the words in which likelihoods declare what they fit."""
    if rows.min() < 0.0 or rows.max() > 1.0:
        return frozenset({"real"})
    levels = rows * np.float32(max_value)
    if np.abs(levels - np.rint(levels)).max() > _ROUNDING:
        return frozenset({"real", "continuous"})
    is_binary = bool(np.all((rows == 0.0) | (rows == 1.0)))
    return frozenset({"real", "continuous", "levels", *(["binary"] if is_binary else [])})


# Of a grey level in float32, for up to 16 bits.
_ROUNDING = 0.01


def _check_continues(before: _Design, design: _Design) -> None:
    """Refuses to go on with another model or optimizer; another objective can take over both."""
    changed = [line for line in differences(before.config, design.config) if not line.startswith("objective.")]
    for name in ("image_shape", "max_value"):
        old, new = getattr(before, name), getattr(design, name)
        changed += [f"{name}: {old} -> {new}"] if old != new else []
    if changed:
        with _in_words_of_parameters():
            raise UserError(f"partial_fit can't change {', '.join(changed)}; undo it, or start anew with fit")


def _check_is_in_range(design: _Design, rows: Float[np.ndarray, "n p"]) -> None:
    if rows.min() < 0.0 or rows.max() > 1.0:
        raise UserError(
            f"likelihood '{design.config.model.likelihood}' is for values in [0, 1], and X has {rows.min():g} to "
            f"{rows.max():g}; scale it, e.g. by MinMaxScaler(clip=True), or choose gaussian_learned"
        )


def _check_is_density(design: _Design, rows: Float[np.ndarray, "n p"]) -> None:
    kinds, fits = _kinds(rows, design.max_value), design.model.likelihood.fits
    if not kinds & fits:
        words = {
            "binary": "0 or 1",
            "levels": f"k / {design.max_value} (max_value)",
            "continuous": "in [0, 1]",
            "real": "real",
        }
        raise UserError(
            f"likelihood '{design.config.model.likelihood}' is a density of values that are "
            f"{' or '.join(words[kind] for kind in sorted(fits))}, and X has others; bring X into this form, or choose "
            "continuous_bernoulli (values in [0, 1]) or gaussian_learned (any)"
        )


def _check_has_density(model: VAE) -> None:
    if not model.posterior.has_density:
        raise UserError(
            "a plain autoencoder has no distribution to sample from or to score by; choose a posterior with a density, "
            "such as diagonal_gaussian"
        )


def _reads_num_rows(config: Config) -> bool:
    """Whether the objective refers to the whole data set, and so is another one for more rows."""
    one, two = (make("objective.name", config.objective.name, OBJECTIVES, config, number) for number in (1, 2))
    return one != two


def _seed(random_state: Any) -> np.uint32:
    return np.uint32(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _precision(values: np.ndarray) -> Any:
    """What results of these are given in."""
    return np.float32 if values.dtype == np.float32 else np.float64


def _plain(value: Any) -> Any:
    """NumPy's numbers and any sequence as Python's own: a grid of parameters may consist of either."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(_plain(item) for item in value) if isinstance(value, list | tuple | np.ndarray) else value


@contextlib.contextmanager
def _in_words_of_parameters() -> Iterator[None]:
    """Names parameters, where the config's errors name its fields."""
    try:
        yield
    except UserError as error:
        message = str(error).replace("--config.", "")
        for parameter, field in _FIELDS.items():
            message = message.replace(f"config field '{field}'", f"parameter '{parameter}'").replace(field, parameter)
        raise UserError(message) from error
