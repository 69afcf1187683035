"""What a scikit-learn estimator of ours is made of, from its parameters and the shape of a row."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from vae_jax.build import build_model
from vae_jax.build.objective import OBJECTIVES
from vae_jax.build.registry import make
from vae_jax.config import Config, ModelConfig, differences, from_mapping
from vae_jax.errors import UserError
from vae_jax.vae import VAE

ImageShape = tuple[int, int, int]

# Compiled functions of so many different models are kept.
KEPT = 64
# Parameters that are fields of the config, and how the command line calls them.
FIELDS = {
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


class ModelKey(NamedTuple):
    """All that a model follows from."""

    config: ModelConfig
    image_shape: ImageShape
    max_value: int


@dataclasses.dataclass(frozen=True)
class Design:
    """All that tells one training program from another, but for the end of a schedule."""

    config: Config
    image_shape: ImageShape
    max_value: int

    @property
    def model_key(self) -> ModelKey:
        return ModelKey(self.config.model, self.image_shape, self.max_value)

    @property
    def model(self) -> VAE:
        with in_words_of_parameters():
            return model_of(self.model_key)

    def to_plain(self) -> dict[str, Any]:
        """As what a pickle can hold without a class of this package."""
        sections = {name: dataclasses.asdict(getattr(self.config, name)) for name in ("model", "objective", "train")}
        return {"config": sections, "image_shape": self.image_shape, "max_value": self.max_value}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Design":
        return cls(from_mapping(plain["config"]), plain["image_shape"], plain["max_value"])


@functools.lru_cache(maxsize=KEPT)
def model_of(key: ModelKey) -> VAE:
    return build_model(key.config, key.image_shape, key.max_value)


def image_shape_of(wanted: Any, row_shape: tuple[int, ...]) -> ImageShape:
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


def check_continues(before: Design, design: Design) -> None:
    """Refuses to go on with another model or optimizer; another objective can take over both."""
    changed = [line for line in differences(before.config, design.config) if not line.startswith("objective.")]
    for name in ("image_shape", "max_value"):
        old, new = getattr(before, name), getattr(design, name)
        changed += [f"{name}: {old} -> {new}"] if old != new else []
    if changed:
        with in_words_of_parameters():
            raise UserError(f"partial_fit can't change {', '.join(changed)}; undo it, or start anew with fit")


def reads_num_rows(config: Config) -> bool:
    """Whether the objective refers to the whole data set, and so is another one for more rows."""
    one, two = (make("objective.name", config.objective.name, OBJECTIVES, config, number) for number in (1, 2))
    return one != two


def check_has_density(model: VAE) -> None:
    if not model.posterior.has_density:
        raise UserError(
            "a plain autoencoder has no distribution to sample from or to score by; choose a posterior with a density, "
            "such as diagonal_gaussian"
        )


@contextlib.contextmanager
def in_words_of_parameters() -> Iterator[None]:
    """Names parameters, where the config's errors name its fields."""
    try:
        yield
    except UserError as error:
        message = str(error).replace("--config.", "")
        for parameter, field in FIELDS.items():
            message = message.replace(f"config field '{field}'", f"parameter '{parameter}'").replace(field, parameter)
        raise UserError(message) from error
