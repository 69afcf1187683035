"""Every configuration field: its name, default, meaning and bounds, defined once.

Frozen dataclasses. `configs/*.py` turn them into an `ml_collections.ConfigDict` for the command line
(`to_config_dict`), which is turned back and checked once, at the edge (`from_mapping`).
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from vae_jax.errors import COUNTS, UserError
from vae_jax.printable import one_line

# A config may come from somebody else: these limit what is created before the memory is checked.
_PARTS = 129
_MACHINES = 1025
_LONGEST = 4096


def _field(default: Any, meaning: str, *, minimum: float | None = None, below: float | None = None) -> Any:
    numbers = default if isinstance(default, tuple) else (default,)
    if below is None and all(type(number) is int for number in numbers):
        below = COUNTS
    metadata = {"meaning": meaning, "minimum": minimum, "below": below}
    return dataclasses.field(default=default, metadata=metadata)


# JAX keys use 32 bits of a seed, so a larger seed would give the same run as a smaller one.
SEEDS = 2**32


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they are turned into what the model sees."""

    source: str = _field("digits", "where images come from: digits, tfds, npz or folder")
    name: str = _field("", "TFDS name of the data set, for source tfds")
    dir: str = _field(
        "", "folder of image files, for source folder; TFDS folder (empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets)"
    )
    path: str = _field("", "the .npz file, for source npz")
    binarization: str = _field("dynamic", "dynamic (drawn again at each use), fixed, threshold or none")
    seed: int = _field(0, "fixes splits and the binarization of evaluated images", minimum=0, below=SEEDS)
    validation_fraction: float = _field(
        0.05, "share of the training images that chooses the best checkpoint", minimum=0.0, below=1.0
    )
    test_fraction: float = _field(
        0.2, "share of all images held out where a source has no test part", minimum=0.0, below=1.0
    )
    image_size: int = _field(
        0, "side of the square that images are resized to (folder, tfds); 0: not resized", minimum=0, below=8193
    )
    image_fit: str = _field("crop", "how images are resized: crop (the middle square) or resize (the whole image)")
    unreadable: str = _field(
        "refuse", "files of a folder that can't be read: refuse (an error) or skip (reported and left out)"
    )
    resident_mb: int = _field(
        2048, "data sets larger than this, in MB, are streamed from their files; 0: all are", minimum=0
    )
    workers: int = _field(2, "processes that decode streamed images; 0: threads only", minimum=0, below=257)
    prefetch: int = _field(4, "batches of streamed images to decode ahead", minimum=1, below=_MACHINES)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The parts of the model."""

    network: str = _field("mlp", "encoder and decoder: mlp, conv or resnet")
    hidden: tuple[int, ...] = _field(
        (200,), "widths of the encoder's layers (mlp) or channels of its stages; the decoder mirrors them", minimum=1
    )
    activation: str = _field("relu", "activation between layers: relu, tanh, gelu or silu")
    upsampling: str = _field("transpose", "how conv and resnet decoders grow: transpose or resize")
    dtype: str = _field("float32", "type of numbers in networks: float32 or bfloat16; parameters are always float32")
    latents: int = _field(10, "numbers in z; with two layers, in the lower one", minimum=1)
    conditional: bool = _field(False, "whether encoder and decoder get the class label")
    likelihood: str = _field(
        "bernoulli",
        "p(x|z): bernoulli, continuous_bernoulli, gaussian, gaussian_learned, gaussian_per_pixel, "
        "discretized_logistic or discretized_logistic_mixture",
    )
    likelihood_stddev: float = _field(
        1.0, "standard deviation of gaussian, on pixels in [0, 1]; where gaussian_learned starts", minimum=1e-6
    )
    likelihood_components: int = _field(10, "components of discretized_logistic_mixture", minimum=1)
    posterior: str = _field(
        "diagonal_gaussian", "q(z|x): diagonal_gaussian, full_gaussian, planar, iaf, hierarchical or point_mass"
    )
    posterior_flows: int = _field(4, "flows of planar and iaf", minimum=1, below=_PARTS)
    posterior_hidden: tuple[int, ...] = _field((320, 320), "widths inside each iaf flow", minimum=1)
    prior: str = _field("standard_normal", "p(z): standard_normal, mixture, vampprior, realnvp or hierarchical")
    prior_components: int = _field(100, "components of mixture and vampprior", minimum=1)
    prior_flows: int = _field(6, "flows of realnvp", minimum=2, below=_PARTS)
    prior_hidden: tuple[int, ...] = _field((128, 128), "widths inside each realnvp flow", minimum=1)
    upper_latents: int = _field(50, "numbers in the upper layer of hierarchical", minimum=1)
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
    annealing: str = _field("none", "how beta rises from 0: none (at once), linear or cyclical")
    annealing_steps: int = _field(0, "steps of the rise, or of a cycle; also for capacity", minimum=0)
    free_nats: float = _field(0.5, "free nats of KL per latent dimension, for free_bits", minimum=0.0)
    capacity: float = _field(25.0, "target of the KL in nats, for capacity", minimum=0.0)
    capacity_weight: float = _field(10.0, "weight of the distance to the target (gamma), for capacity", minimum=0.0)
    mmd_alpha: float = _field(1.0, "weight of the mutual information in mmd; 1: no KL term", minimum=-100.0)
    mmd_weight: float = _field(500.0, "lambda of mmd", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How it is optimized, and what is written during training."""

    batch_size: int = _field(64, "images per step, over all devices", minimum=1)
    accumulation: int = _field(1, "parts of a batch that are computed one after the other, to save memory", minimum=1)
    num_epochs: int = _field(200, "passes over the training images", minimum=1)
    num_steps: int = _field(0, "steps in total, instead of num_epochs; 0: use num_epochs", minimum=0)
    optimizer: str = _field("adam", "adam, adamw, adagrad, rmsprop or sgd")
    learning_rate: float = _field(1e-3, "peak learning rate", minimum=0.0)
    schedule: str = _field("constant", "learning rate over the steps: constant, cosine, or iwae (Burda et al.)")
    warmup_steps: int = _field(0, "steps over which the learning rate rises from 0", minimum=0)
    adam_epsilon: float = _field(1e-8, "added to Adam's denominator", minimum=0.0)
    clip_norm: float = _field(
        0.0, "largest global norm of gradients, which are scaled down to it; 0: no limit", minimum=0.0
    )
    ema_decay: float = _field(
        0.0,
        "decay per step of a moving average of the parameters, which is evaluated instead; 0: no average",
        minimum=0.0,
        below=1.0,
    )
    log_every: int = _field(100, "steps between rows of metrics", minimum=1)
    checkpoint_every: int = _field(1000, "steps between checkpoints; 0: at the end of each epoch", minimum=0)
    skip_nonfinite: bool = _field(
        False, "whether to skip and count steps whose numbers aren't finite, instead of ending the run"
    )
    keep_checkpoints: int = _field(3, "number of newest checkpoints to keep, besides the best", minimum=1)
    report: bool = _field(True, "whether to write report.html at the end")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How a trained model is measured."""

    num_samples: int = _field(500, "importance samples per image (K)", minimum=1)
    num_images: int = _field(0, "number of images, from the start of the split; 0: all", minimum=0)
    memory_mb: int = _field(
        64,
        "limit on the memory for samples, in MB; CPUs are fastest if samples fit into their caches",
        minimum=1,
    )


@dataclasses.dataclass(frozen=True)
class DiagnoseConfig:
    """How much `diagnose` computes for each question."""

    num_images: int = _field(200, "images whose gap between the bound and log p(x) is analysed", minimum=2)
    num_samples: int = _field(500, "importance samples per image (K)", minimum=2)
    optimization_steps: int = _field(300, "steps of Adam that fit a q(z) to each image", minimum=1)
    annealed_images: int = _field(50, "images for annealed importance sampling, and as many simulated", minimum=2)
    annealed_chains: int = _field(16, "chains per image", minimum=2)
    temperatures: int = _field(200, "temperatures between the start of a chain and the posterior", minimum=1)
    leapfrog_steps: int = _field(10, "leapfrog steps in each Hamiltonian transition", minimum=1)
    latent_images: int = _field(5000, "images whose latents are analysed", minimum=2)
    generated_images: int = _field(1000, "samples and reconstructions to compare with images", minimum=2)
    features: str = _field(
        "random_convolutions", "features for the Fréchet distance: random_convolutions, or package.module:Name"
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    seed: int = _field(0, "determines all random numbers of the run", minimum=0, below=SEEDS)
    num_seeds: int = _field(
        1, "models to train at once (replicas), with seeds seed, seed + 1, ...", minimum=1, below=_MACHINES
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    diagnose: DiagnoseConfig = DiagnoseConfig()


# Fields that may change when a run is continued, because they don't change steps that were already taken.
MAY_CHANGE = (
    "data.resident_mb",
    "data.workers",
    "data.prefetch",
    "train.num_epochs",
    "train.num_steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.report",
    "train.skip_nonfinite",
    "evaluate.",
    "diagnose.",
)


def flatten(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """Every field below a section: dotted name, value and definition."""
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
    """Checks names, types and bounds, and makes the dataclasses.

    Args:
        mapping: Nested names and values, as from a `ConfigDict` or JSON; missing fields get their defaults.

    Returns:
        The config.

    Raises:
        UserError: For an unknown name (with the closest valid one), a wrong type or a value out of bounds.
    """
    return _section(Config, mapping, "")


def unknown_field(name: str) -> UserError:
    """The error for an unknown field.

    Args:
        name: Dotted name as the user gave it, without the leading `config.`.
    """
    name = one_line(name, 100)
    names = [known for known, _, _ in flatten(Config())]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    if not close:
        close = [known for known in names if known.split(".")[-1] == name.split(".")[-1]]
    hint = f"; did you mean '{close[0]}'?" if close else f"; the fields are {', '.join(names)}"
    return UserError(f"config has no field '{name}'{hint}")


def differences(old: Config, new: Config) -> list[str]:
    """The differences between two configs that can't change when a run is continued, as `name: old -> new`."""
    pairs = zip(flatten(old), flatten(new), strict=True)
    return [
        f"{name}: {before!r} -> {after!r}"
        for (name, before, _), (_, after, _) in pairs
        if before != after and not name.startswith(MAY_CHANGE)
    ]


def _section(cls: type, mapping: Any, prefix: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if not isinstance(mapping, Mapping):
        what = f"config field '{prefix[:-1]}'" if prefix else "a config"
        raise UserError(
            f"{what} is a group of fields, not {_shown(mapping)}; set one of them, e.g. '{prefix}{next(iter(fields))}'"
        )
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


def _shown(value: Any) -> str:
    """A value as Python source; long values are shortened."""
    try:
        return one_line(repr(value), 100)
    except ValueError:
        return "a very long number"


def _checked(name: str, value: Any, field: dataclasses.Field) -> Any:
    """The value with the type of its field, or an error that names what is expected."""
    if field.type == tuple[int, ...]:
        items = value if isinstance(value, list | tuple) else None
        if items is None or not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            raise UserError(f"config field '{name}' is {_shown(value)} but must be whole numbers, e.g. (400,) or ()")
        if len(items) >= _PARTS:
            raise UserError(f"config field '{name}' has {len(items)} numbers; use at most {_PARTS - 1}")
        value = tuple(items)
    elif field.type is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    elif type(value) is not field.type:
        expected = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}[
            typing.cast(type, field.type)
        ]
        raise UserError(f"config field '{name}' is {_shown(value)} but must be {expected}, e.g. {field.default!r}")
    if field.type is float and not math.isfinite(value):
        raise UserError(f"config field '{name}' is {value!r} but must be a finite number, e.g. {field.default!r}")
    if isinstance(value, str) and (len(value) > _LONGEST or "\0" in value):
        raise UserError(
            f"config field '{name}' is {_shown(value)} but must be a text of at most {_LONGEST} characters without NUL"
        )
    minimum, below = field.metadata["minimum"], field.metadata["below"]
    for number in value if isinstance(value, tuple) else [value]:
        if minimum is not None and not number >= minimum:
            raise UserError(f"config field '{name}' is {_shown(value)} but must be at least {minimum}")
        if below is not None and not number < below:
            raise UserError(f"config field '{name}' is {_shown(value)} but must be below {below}")
    return value
