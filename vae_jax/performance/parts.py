"""What is measured of a run: its step, in parts that can be timed by themselves."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vae_jax import build
from vae_jax.config import Config
from vae_jax.data import Data
from vae_jax.data.streamed import StreamedImages
from vae_jax.performance.products import Product, products_of
from vae_jax.sharding import batch_mesh
from vae_jax.training import BatchOrder, ResidentSteps, Schedule, StreamedSteps, TrainState
from vae_jax.vae import VAE

# No learning rate ends while it is measured, and files are read for as long.
_ENOUGH_STEPS = 10**8


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is made of.

    Attributes:
        config: The run, complete.
        data: What it trains on.
        model: The model.
        schedule: With steps enough.
        mesh: The devices.
    """

    config: Config
    data: Data
    model: VAE
    schedule: Schedule
    mesh: Mesh

    @classmethod
    def of(cls, config: Config, data: Data) -> "Parts":
        """The parts that a config describes."""
        schedule = build.build_schedule(config, len(data.training.images))
        endless = dataclasses.replace(schedule, log_every=schedule.longest, num_steps=_ENOUGH_STEPS)
        model = build.build_model_for(config, data)
        return cls(config, data, model, endless, batch_mesh(config.train.batch_size))

    @property
    def has_replicas(self) -> bool:
        """Whether several models train at once."""
        return self.config.num_seeds > 1

    @property
    def is_streamed(self) -> bool:
        """Whether images are read from files meanwhile."""
        return isinstance(self.data.training.images, StreamedImages)

    @property
    def in_one_call(self) -> bool:
        """Whether many steps are made in one call."""
        return not self.is_streamed and build.steps_in_one_call(self.model)

    @property
    def order(self) -> BatchOrder:
        """Which images make up each batch."""
        return BatchOrder(build.seeds_of(self.config), self.config.train.batch_size, len(self.data.training.images))

    def steps(self) -> ResidentSteps | StreamedSteps:
        """The steps as they are trained, not compiled yet."""
        return build.build_steps(self.config, self.model, self.data, self.schedule, self.mesh)

    def fresh(self) -> TrainState:
        """A state before its first step."""
        shape = self.data.dataset.image_shape
        return build.build_state(self.config, self.model, shape, self.schedule.num_steps)

    def products(self, num_devices: int = 1) -> list[Product]:
        """The products of a step, or of one device's share of it where several divide the batch."""
        train = self.config.train
        share = train.batch_size // num_devices
        shared = dataclasses.replace(train, batch_size=share, accumulation=math.gcd(train.accumulation, share))
        config = dataclasses.replace(self.config, train=shared)
        images = self.data.training.images
        step = build.build_train_step(
            config, self.model, self.schedule, build.build_preparation(self.data), len(images)
        )
        shape = dataclasses.replace(self.order, batch_size=share).batch_shape
        batch = jax.ShapeDtypeStruct((*shape, *images.shape[1:]), jnp.uint8)
        labels = jax.ShapeDtypeStruct(shape, jnp.int32) if self.model.num_classes else None
        return products_of(step, jax.eval_shape(self.fresh), batch, jax.eval_shape(self.order.key), labels)
