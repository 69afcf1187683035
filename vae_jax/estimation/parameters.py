"""The parameters of the estimator as a config, checked together with the shape of a row."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vae_jax.build import build_model, build_objective, build_optimizer, check_objective, resolve_parts
from vae_jax.config import Config, TrainConfig, differences, from_mapping
from vae_jax.errors import UserError
from vae_jax.models import Model

# Parameters that are fields of the config.
FIELDS = {
    "n_components": "model.latents",
    "network": "model.network",
    "likelihood": "model.likelihood",
    "posterior": "model.posterior",
    "prior": "model.prior",
    "objective": "objective",
    "batch_size": "train.batch_size",
    "max_iter": "train.num_epochs",
    "learning_rate": "train.learning_rate",
    "n_likelihood_samples": "evaluate.num_samples",
}
# Fields that can be set through `options`.
_OPTIONS = [f"train.{name}" for name in ("optimizer", "schedule", "warmup_steps", "clip_norm", "ema_decay")]


@dataclasses.dataclass(frozen=True)
class Design:
    """What the compiled functions are made from. Estimators with equal designs share them.

    Attributes:
        config: Its model, objective and optimizer. Fields that are arguments of the compiled functions have their
            defaults: `batch_size`, `num_epochs` and `learning_rate`.
        image_shape: Height, width and channels that the networks see.
        max_value: Largest grey level.
    """

    config: Config
    image_shape: tuple[int, int, int]
    max_value: int

    @functools.cached_property
    def model(self) -> Model:
        """The model."""
        with names_of_parameters():
            return build_model(self.config.model, self.image_shape, self.max_value)

    @property
    def uses_num_rows(self) -> bool:
        """Whether the objective depends on the number of rows of the whole data set."""
        return build_objective(self.config, self.model, 1) != build_objective(self.config, self.model, 2)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Design":
        """Reads what `dataclasses.asdict` made, plain values that a pickle can hold without this class."""
        return cls(from_mapping(plain["config"]), plain["image_shape"], plain["max_value"])


def config_of(parameters: Mapping[str, Any]) -> Config:
    """The config that the parameters of an estimator stand for.

    Raises:
        UserError: If a value isn't allowed, or `options` has a field that isn't an option.
    """
    options = parameters["options"] or {}
    if not isinstance(options, Mapping):
        raise UserError(f"options is {options!r} but must be names and values, e.g. {{'train.schedule': 'cosine'}}")
    for name in options:
        if name in FIELDS.values():
            parameter = next(parameter for parameter, field in FIELDS.items() if field == name)
            raise UserError(f"options has '{name}', which is the parameter {parameter}; set that instead")
        if name not in _OPTIONS:
            raise UserError(f"options has '{name}'; choose from {', '.join(_OPTIONS)}")
    mapping: dict[str, Any] = {}
    for name, value in {**{field: parameters[parameter] for parameter, field in FIELDS.items()}, **options}.items():
        section, _, field = name.rpartition(".")
        (mapping.setdefault(section, {}) if section else mapping)[field] = _plain(value)
    with names_of_parameters():
        return resolve_parts(from_mapping(mapping))


def design_of(config: Config, image_shape: Any, max_value: Any, row_shape: tuple[int, ...], num_rows: int) -> Design:
    """What is to be trained.

    Args:
        config: From `config_of`.
        image_shape: The parameter of that name.
        max_value: The parameter of that name.
        row_shape: Shape of one row of X: `(D,)`, `(H, W)` or `(H, W, C)`.
        num_rows: Rows of X.

    Raises:
        UserError: If these don't go together.
    """
    max_value = _plain(max_value)
    if type(max_value) is not int or max_value < 1:
        raise UserError(f"max_value is {max_value!r} but must be a whole number of at least 1")
    defaults = TrainConfig()
    arguments = {name: getattr(defaults, name) for name in ("batch_size", "num_epochs", "learning_rate")}
    train = dataclasses.replace(config.train, **arguments)
    shape = _image_shape_of(_plain(image_shape), row_shape)
    design = Design(Config(model=config.model, objective=config.objective, train=train), shape, max_value)
    with names_of_parameters():
        check_objective(config, design.model, num_rows, design.image_shape)
        build_optimizer(config, design.model, num_steps=1)
    return design


def check_continues(before: Design, design: Design) -> None:
    """Refuses to continue with another model or optimizer. Another objective can continue with both.

    Raises:
        UserError: If one of them was changed.
    """
    changed = [line for line in differences(before.config, design.config) if not line.startswith("objective:")]
    for name in ("image_shape", "max_value"):
        old, new = getattr(before, name), getattr(design, name)
        changed += [f"{name}: {old} -> {new}"] if old != new else []
    if changed:
        with names_of_parameters():
            raise UserError(f"partial_fit can't change {', '.join(changed)}; undo it, or start anew with fit")


@contextlib.contextmanager
def names_of_parameters() -> Iterator[None]:
    """Replaces the names of config fields in errors by those of the estimator's parameters."""
    try:
        yield
    except UserError as error:
        message = str(error).replace("--config.", "")
        for parameter, field in FIELDS.items():
            message = message.replace(f"config field '{field}'", f"parameter '{parameter}'").replace(field, parameter)
        raise UserError(message) from error


def _image_shape_of(wanted: Any, row_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels that the networks see."""
    if wanted is None:
        if len(row_shape) > 3:
            raise UserError(f"X has rows of shape {row_shape}; give [N, D], [N, H, W] or [N, H, W, C]")
        wanted = (1, *row_shape) if len(row_shape) == 1 else row_shape
    is_shape = isinstance(wanted, tuple) and len(wanted) in (2, 3)
    if not is_shape or not all(type(size) is int and size > 0 for size in wanted):
        raise UserError(f"image_shape is {wanted!r} but must be (H, W) or (H, W, C)")
    if math.prod(wanted) != math.prod(row_shape):
        raise UserError(
            f"image_shape {wanted} is {math.prod(wanted)} numbers, but X has {math.prod(row_shape)} in a row"
        )
    height, width, channels = (*wanted, 1)[:3]
    return height, width, channels


def _plain(value: Any) -> Any:
    """Numbers of NumPy, and any sequence, as Python values: a grid of parameters may have either."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(_plain(item) for item in value) if isinstance(value, list | tuple | np.ndarray) else value
