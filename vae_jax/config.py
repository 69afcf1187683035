"""Every configuration field with its name, default, meaning and bounds.

Frozen dataclasses. `configs/*.py` turn them into an `ml_collections.ConfigDict` for the command line
(`to_config_dict`); `from_mapping` checks it and turns it back.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from vae_jax.errors import UserError
from vae_jax.escaping import one_line
from vae_jax.settings import checked, closest, setting

# Bounds on what is created one by one, as a config can come from somebody else.
_MACHINES = 1025
BINARIZATIONS = ("dynamic", "fixed", "threshold", "none")
_SCHEDULES = ("constant", "cosine", "iwae")
# JAX keys use 32 bits of a seed: a larger seed would repeat the run of a smaller one.
SEEDS = 2**32


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from, and how they become the input of the model."""

    source: str = setting("digits", "where images come from: digits, tfds, npz or folder")
    name: str = setting("", "TFDS name of the data set, for source tfds")
    dir: str = setting("", "folder of images, or of TFDS (empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets)")
    path: str = setting("", "the .npz or .npy file, for source npz")
    binarization: str = setting("dynamic", "dynamic (at each use), fixed, threshold or none", choices=BINARIZATIONS)
    seed: int = setting(0, "fixes splits and the binarization of evaluated images", minimum=0, below=SEEDS)
    validation_fraction: float = setting(0.05, "share of the training images for validation", minimum=0.0, below=1.0)
    test_fraction: float = setting(0.2, "share for testing, if a source has no test images", minimum=0.0, below=1.0)
    labels: str = setting("", "CSV file with a column `file` and numbers that a conditional model is told (folder)")
    context: str = setting("", "columns of data.labels, with commas between; all but `file` if empty")
    image_size: int = setting(0, "height and width after resizing (folder, tfds); 0: unchanged", minimum=0, below=8193)
    image_fit: str = setting("crop", "crop (the middle square) or resize (the whole image)", choices=("crop", "resize"))
    unreadable: str = setting(
        "refuse", "files of a folder that can't be read: refuse or skip", choices=("refuse", "skip")
    )
    resident_mb: int = setting(2048, "larger data sets are streamed from their files; 0: always", minimum=0)
    workers: int = setting(2, "processes that decode streamed images; 0: threads", minimum=0, below=257)
    prefetch: int = setting(4, "batches of streamed images that are decoded ahead", minimum=1, below=_MACHINES)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The parts of the model: names, or names with settings such as `iaf(flows=8)`."""

    kind: str = setting("vae", "what the parts make up")
    network: str = setting("mlp", "encoder and decoder")
    latents: int = setting(10, "dimensions of z; of the lower layer, or at each place of a map", minimum=1)
    conditional: bool = setting(False, "whether encoder and decoder get the class label or context")
    likelihood: str = setting("bernoulli", "p(x|z)")
    posterior: str = setting("diagonal_gaussian", "q(z|x)")
    prior: str = setting("standard_normal", "p(z)")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How it is optimized, and what is saved during training."""

    batch_size: int = setting(64, "images per step, over all devices", minimum=1)
    accumulation: int = setting(1, "parts that a batch is processed in, one by one, to save memory", minimum=1)
    num_epochs: int = setting(200, "passes over the training images", minimum=1)
    num_steps: int = setting(0, "total number of steps, instead of epochs; 0: count epochs", minimum=0)
    optimizer: str = setting("adam", "what turns gradients into updates")
    learning_rate: float = setting(1e-3, "peak learning rate", minimum=0.0)
    schedule: str = setting("constant", "of the learning rate: constant, cosine or iwae", choices=_SCHEDULES)
    warmup_steps: int = setting(0, "steps over which the learning rate rises from 0", minimum=0)
    clip_norm: float = setting(0.0, "gradients are scaled down to this global norm; 0: never", minimum=0.0)
    ema_decay: float = setting(0.0, "decay of averaged parameters, for evaluation; 0: none", minimum=0.0, below=1.0)
    log_every: int = setting(100, "steps between rows of metrics", minimum=1)
    checkpoint_every: int = setting(1000, "steps between checkpoints; 0: at the end of each epoch", minimum=0)
    skip_nonfinite: bool = setting(False, "skip and count steps with a non-finite loss or gradient, or stop")
    keep_checkpoints: int = setting(3, "newest checkpoints to keep, besides the best", minimum=1)
    report: bool = setting(True, "whether report.html is written at the end")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """How a trained model is measured."""

    num_samples: int = setting(500, "importance samples per image (K)", minimum=1)
    num_images: int = setting(0, "first images of the split to use; 0: all", minimum=0)
    memory_mb: int = setting(
        64, "memory for a chunk of samples, in MB; CPUs are fastest if it fits the cache", minimum=1
    )


@dataclasses.dataclass(frozen=True)
class DiagnoseConfig:
    """How much `diagnose` computes for each of its questions."""

    num_images: int = setting(200, "images whose gap between the bound and log p(x) is split up", minimum=2)
    num_samples: int = setting(500, "importance samples per image (K)", minimum=2)
    optimization_steps: int = setting(300, "steps of Adam that fit a q(z) to each image", minimum=1)
    annealed_images: int = setting(50, "images for annealed importance sampling, and as many simulated", minimum=2)
    annealed_chains: int = setting(16, "chains per image", minimum=2)
    temperatures: int = setting(200, "between the start of a chain and the posterior", minimum=1)
    leapfrog_steps: int = setting(10, "in each Hamiltonian transition", minimum=1)
    latent_images: int = setting(5000, "images whose latents are examined", minimum=2)
    generated_images: int = setting(1000, "samples and reconstructions to compare with images", minimum=2)
    features: str = setting(
        "random_convolutions", "for the Fréchet distance: random_convolutions or package.module:Name"
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    seed: int = setting(0, "of all random numbers of the run", minimum=0, below=SEEDS)
    num_seeds: int = setting(1, "replicas to train at once, replica i with seed + i", minimum=1, below=_MACHINES)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    objective: str = setting("elbo", "what is optimized")
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    diagnose: DiagnoseConfig = DiagnoseConfig()


# The fields that name a part, maybe with settings.
PARTS = (
    *("model.kind", "model.network", "model.likelihood", "model.posterior", "model.prior"),
    *("objective", "train.optimizer"),
)
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
    hint = closest(name, names) or closest(name.rpartition(".")[2], names) or f"; the fields are {', '.join(names)}"
    return UserError(f"config has no field '{name}'{hint}")


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
            values[name] = checked(f"config field '{prefix}{name}'", value, field)
    return cls(**values)
