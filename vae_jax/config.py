"""Every configuration field with its name, default, meaning and bounds.

Frozen dataclasses. `configs/*.py` turn them into an `ml_collections.ConfigDict` for the command line
(`to_config_dict`); `from_mapping` checks it and turns it back.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from vae_jax.errors import COUNTS, UserError
from vae_jax.escaping import one_line

# Bounds on what is created one by one, as a config can come from somebody else.
_PARTS = 129
_MACHINES = 1025
_LONGEST = 4096
# JAX keys use 32 bits of a seed: a larger seed would repeat the run of a smaller one.
SEEDS = 2**32


def _field(default: Any, meaning: str, *, minimum: float | None = None, below: float | None = None) -> Any:
    numbers = default if isinstance(default, tuple) else (default,)
    if below is None and all(type(number) is int for number in numbers):
        below = COUNTS
    return dataclasses.field(default=default, metadata={"meaning": meaning, "minimum": minimum, "below": below})


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from, and how they become the input of the model."""

    source: str = _field("digits", "where images come from: digits, tfds, npz or folder")
    name: str = _field("", "TFDS name of the data set, for source tfds")
    dir: str = _field("", "folder of images, or of TFDS (empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets)")
    path: str = _field("", "the .npz file, for source npz")
    binarization: str = _field("dynamic", "dynamic (drawn anew at each use), fixed, threshold or none")
    seed: int = _field(0, "fixes splits and the binarization of evaluated images", minimum=0, below=SEEDS)
    validation_fraction: float = _field(0.05, "share of the training images for validation", minimum=0.0, below=1.0)
    test_fraction: float = _field(0.2, "share for testing, if a source has no test images", minimum=0.0, below=1.0)
    image_size: int = _field(0, "height and width after resizing (folder, tfds); 0: unchanged", minimum=0, below=8193)
    image_fit: str = _field("crop", "crop (the middle square, resized) or resize (the whole image)")
    unreadable: str = _field("refuse", "unreadable files of a folder: refuse, or skip (listed and left out)")
    resident_mb: int = _field(2048, "larger data sets are streamed from their files; 0: always", minimum=0)
    workers: int = _field(2, "processes that decode streamed images; 0: threads", minimum=0, below=257)
    prefetch: int = _field(4, "batches of streamed images that are decoded ahead", minimum=1, below=_MACHINES)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The parts of the model."""

    network: str = _field("mlp", "encoder and decoder: mlp, conv or resnet")
    hidden: tuple[int, ...] = _field((200,), "widths (mlp) or channels of the encoder; the decoder's mirror", minimum=1)
    activation: str = _field("relu", "between layers: relu, tanh, gelu or silu")
    upsampling: str = _field("transpose", "in conv and resnet decoders: transpose or resize")
    dtype: str = _field("float32", "what networks compute in: float32 or bfloat16; parameters are float32")
    latents: int = _field(10, "dimensions of z; with two layers, of the lower one", minimum=1)
    conditional: bool = _field(False, "whether encoder and decoder get the class label")
    likelihood: str = _field(
        "bernoulli",
        "p(x|z): bernoulli, continuous_bernoulli, gaussian, gaussian_learned, gaussian_per_pixel, "
        "discretized_logistic or discretized_logistic_mixture",
    )
    likelihood_stddev: float = _field(
        1.0, "standard deviation of gaussian, for pixels in [0, 1]; start of gaussian_learned", minimum=1e-6
    )
    likelihood_components: int = _field(10, "components of discretized_logistic_mixture", minimum=1)
    posterior: str = _field(
        "diagonal_gaussian", "q(z|x): diagonal_gaussian, full_gaussian, planar, iaf, hierarchical or point_mass"
    )
    posterior_flows: int = _field(4, "flows of planar and iaf", minimum=1, below=_PARTS)
    posterior_hidden: tuple[int, ...] = _field((320, 320), "widths in each iaf flow", minimum=1)
    prior: str = _field("standard_normal", "p(z): standard_normal, mixture, vampprior, realnvp or hierarchical")
    prior_components: int = _field(100, "components of mixture and vampprior", minimum=1)
    prior_flows: int = _field(6, "flows of realnvp", minimum=2, below=_PARTS)
    prior_hidden: tuple[int, ...] = _field((128, 128), "widths in each realnvp flow", minimum=1)
    upper_latents: int = _field(50, "dimensions of the upper layer of hierarchical", minimum=1)
    upper_hidden: tuple[int, ...] = _field((100, 100), "widths between the layers of hierarchical", minimum=1)


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is optimized."""

    name: str = _field(
        "elbo", "elbo, beta, free_bits, capacity, iwae, dreg, mmd, beta_tcvae, wake_sleep or autoencoder"
    )
    num_samples: int = _field(1, "posterior samples per image and step (L; K of iwae and dreg)", minimum=1)
    analytic_kl: bool = _field(True, "the KL in closed form (AEVB eq. 10), else by Monte Carlo (eq. 6)")
    gradient: str = _field("reparameterized", "of the expectation: reparameterized or score_function")
    beta: float = _field(1.0, "weight of the KL (beta), or of the total correlation (beta_tcvae)", minimum=0.0)
    annealing: str = _field("none", "how beta rises: none, linear or cyclical")
    annealing_steps: int = _field(0, "steps of the rise (beta, capacity), or of a cycle", minimum=0)
    free_nats: float = _field(0.5, "per latent dimension, for free_bits", minimum=0.0)
    capacity: float = _field(25.0, "target of the KL in nats, for capacity", minimum=0.0)
    capacity_weight: float = _field(10.0, "gamma of capacity", minimum=0.0)
    mmd_alpha: float = _field(1.0, "weight of the mutual information in mmd; 1: no KL term", minimum=-100.0)
    mmd_weight: float = _field(500.0, "lambda of mmd", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How it is optimized, and what is saved during training."""

    batch_size: int = _field(64, "images per step, over all devices", minimum=1)
    accumulation: int = _field(1, "parts that a batch is processed in, one by one, to save memory", minimum=1)
    num_epochs: int = _field(200, "passes over the training images", minimum=1)
    num_steps: int = _field(0, "total number of steps, instead of epochs; 0: count epochs", minimum=0)
    optimizer: str = _field("adam", "adam, adamw, adagrad, rmsprop or sgd")
    learning_rate: float = _field(1e-3, "peak learning rate", minimum=0.0)
    schedule: str = _field("constant", "learning rate over the steps: constant, cosine, or iwae (Burda et al.)")
    warmup_steps: int = _field(0, "steps over which the learning rate rises from 0", minimum=0)
    adam_epsilon: float = _field(1e-8, "added to Adam's denominator", minimum=0.0)
    clip_norm: float = _field(0.0, "gradients are scaled down to this global norm; 0: never", minimum=0.0)
    ema_decay: float = _field(0.0, "decay of averaged parameters, for evaluation; 0: none", minimum=0.0, below=1.0)
    log_every: int = _field(100, "steps between rows of metrics", minimum=1)
    checkpoint_every: int = _field(1000, "steps between checkpoints; 0: at the end of each epoch", minimum=0)
    skip_nonfinite: bool = _field(False, "skip and count steps with a non-finite loss or gradient, instead of stopping")
    keep_checkpoints: int = _field(3, "newest checkpoints to keep, besides the best", minimum=1)
    report: bool = _field(True, "whether report.html is written at the end")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How a trained model is measured."""

    num_samples: int = _field(500, "importance samples per image (K)", minimum=1)
    num_images: int = _field(0, "first images of the split to use; 0: all", minimum=0)
    memory_mb: int = _field(
        64, "memory for a chunk of samples, in MB; CPUs are fastest if it fits the cache", minimum=1
    )


@dataclasses.dataclass(frozen=True)
class DiagnoseConfig:
    """How much `diagnose` computes for each of its questions."""

    num_images: int = _field(200, "images whose gap between the bound and log p(x) is split up", minimum=2)
    num_samples: int = _field(500, "importance samples per image (K)", minimum=2)
    optimization_steps: int = _field(300, "steps of Adam that fit a q(z) to each image", minimum=1)
    annealed_images: int = _field(50, "images for annealed importance sampling, and as many simulated", minimum=2)
    annealed_chains: int = _field(16, "chains per image", minimum=2)
    temperatures: int = _field(200, "between the start of a chain and the posterior", minimum=1)
    leapfrog_steps: int = _field(10, "in each Hamiltonian transition", minimum=1)
    latent_images: int = _field(5000, "images whose latents are examined", minimum=2)
    generated_images: int = _field(1000, "samples and reconstructions to compare with images", minimum=2)
    features: str = _field(
        "random_convolutions", "for the Fréchet distance: random_convolutions or package.module:Name"
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    seed: int = _field(0, "of all random numbers of the run", minimum=0, below=SEEDS)
    num_seeds: int = _field(1, "replicas to train at once, replica i with seed + i", minimum=1, below=_MACHINES)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    diagnose: DiagnoseConfig = DiagnoseConfig()


# What may change when a run is continued: it doesn't affect steps that were already taken.
MAY_CHANGE = (
    *("data.resident_mb", "data.workers", "data.prefetch"),
    *("train.num_epochs", "train.num_steps", "train.log_every", "train.checkpoint_every", "train.keep_checkpoints"),
    *("train.report", "train.skip_nonfinite", "evaluate.", "diagnose."),
)


def flatten(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """Dotted name, value and definition of every field below a section."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, field


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The same fields as an `ml_collections.ConfigDict`, which the command line can override."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_mapping(mapping: Any) -> Config:
    """The config with these values, after checking names, types and bounds.

    Args:
        mapping: Nested names and values, as from a `ConfigDict` or JSON; missing fields get their defaults.

    Raises:
        UserError: For an unknown name (with the closest known one), a wrong type or a value out of bounds.
    """
    return _section(Config, mapping, "")


def unknown_field(name: str) -> UserError:
    """The error for an unknown field, with the closest known one.

    Args:
        name: Dotted name as the user gave it, without the leading `config.`.
    """
    name = one_line(name, 100)
    names = [known for known, _, _ in flatten(Config())]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    close = close or [known for known in names if known.split(".")[-1] == name.split(".")[-1]]
    hint = f"did you mean '{close[0]}'?" if close else f"the fields are {', '.join(names)}"
    return UserError(f"config has no field '{name}'; {hint}")


def differences(old: Config, new: Config) -> list[str]:
    """The fields that differ but may not change when a run is continued, as `name: old -> new`."""
    return [
        f"{name}: {before!r} -> {after!r}"
        for (name, before, _), (_, after, _) in zip(flatten(old), flatten(new), strict=True)
        if before != after and not name.startswith(MAY_CHANGE)
    ]


def _section(cls: type, mapping: Any, prefix: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if not isinstance(mapping, Mapping):
        what = f"config field '{prefix[:-1]}'" if prefix else "a config"
        shown, example = one_line(repr(mapping), 100), f"{prefix}{next(iter(fields))}"
        raise UserError(f"{what} is {shown} but must have fields; set one of them, e.g. '{example}'")
    values = {}
    for name, value in mapping.items():
        if name not in fields:
            raise unknown_field(f"{prefix}{name}")
        field = fields[name]
        if dataclasses.is_dataclass(field.type):
            values[name] = _section(typing.cast(type, field.type), value, f"{prefix}{name}.")
        else:
            values[name] = _checked(f"{prefix}{name}", value, field)
    return cls(**values)


def _checked(name: str, value: Any, field: dataclasses.Field) -> Any:
    """The value as the type of its field, or an error that says what is allowed."""

    def wrong(needed: str) -> UserError:
        return UserError(f"config field '{name}' is {one_line(repr(value), 100)} but must be {needed}")

    example, numbers = f"e.g. {field.default!r}", typing.cast(tuple, (value,))
    if field.type == tuple[int, ...]:
        numbers = tuple(value) if isinstance(value, list | tuple) else (None,)
        if any(type(number) is not int for number in numbers):
            raise wrong("whole numbers, e.g. (400,) or ()")
        if len(numbers) >= _PARTS:
            raise wrong(f"at most {_PARTS - 1} numbers")
        value = numbers
    elif field.type is float and type(value) is int:
        value = float(value) if abs(value) < COUNTS**2 else math.inf
        numbers = (value,)
    elif type(value) is not field.type:
        kinds = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
        raise wrong(f"{kinds[typing.cast(type, field.type)]}, {example}")
    if field.type is float and not math.isfinite(value):
        raise wrong(f"a finite number, {example}")
    if isinstance(value, str) and (len(value) > _LONGEST or "\0" in value):
        raise wrong(f"a text of at most {_LONGEST} characters without NUL")
    minimum, below = field.metadata["minimum"], field.metadata["below"]
    if minimum is not None and not all(number >= minimum for number in numbers):
        raise wrong(f"at least {minimum}")
    if below is not None and not all(number < below for number in numbers):
        raise wrong(f"below {below}")
    return value
