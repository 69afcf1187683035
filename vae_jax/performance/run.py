"""All measurements of the training step of a config."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vae_jax import build
from vae_jax.config import Config
from vae_jax.data import Data
from vae_jax.data.batches import streamed_batches
from vae_jax.data.streamed import StreamedImages
from vae_jax.performance.machine import memory_taken
from vae_jax.performance.measure import (
    StepTimers,
    Timer,
    compile_seconds,
    gather_timer,
    in_turns,
    large_product_timer,
    optimizer_timer,
    products_timers,
    reading_timer,
)
from vae_jax.performance.parts import Parts
from vae_jax.performance.products import Product
from vae_jax.performance.report import Measurement, report
from vae_jax.sharding import own_columns, replicated

# Rows and columns of a product that is large enough to be as fast as products get there, and how often it is repeated.
_LARGE = {"cpu": (2048, 1)}
_LARGE_ELSEWHERE = (8192, 3)
_SECONDS_OF_STEPS = 1.0


def benchmark(
    config: Config,
    data: Data,
    repeats: int,
    num_steps: int,
    on_compiled: Callable[[jax.stages.Compiled, Mesh, Any], None] = lambda compiled, mesh, state: None,
) -> dict[str, Any]:
    """Measures the training step of a config.

    Args:
        config: The run, complete and checked.
        data: What it trains on.
        repeats: How often each part is timed; parts take turns.
        num_steps: Steps that are timed at once; 0 for as many as take a second, up to the most that training
            makes per call.
        on_compiled: Told once the steps are compiled, with the shapes of the state, before anything is put on the
            devices.

    Returns:
        What `report` makes of it.
    """
    parts = Parts.of(config, data)
    steps = parts.steps()
    shapes = jax.eval_shape(parts.fresh)
    compiled, lowering, compiling = compile_seconds(steps, shapes)
    on_compiled(compiled, parts.mesh, shapes)
    state = jax.jit(parts.fresh, out_shardings=replicated(parts.mesh))()
    timers = StepTimers(steps, state, 1, parts.schedule.longest)
    timers.num_steps = num_steps or _as_many_as_take_a_second(timers, parts.schedule.longest)
    timers.step()
    memory = memory_taken(compiled)
    per_call = parts.schedule.longest if parts.in_one_call else 1
    products = parts.products(parts.mesh.size)
    seconds, size = _measure(parts, timers, products, per_call, repeats)
    return report(
        Measurement(
            parts=parts,
            seconds=seconds,
            shares_waited=timers.shares_waited[-repeats:],
            products=products,
            large_size=size,
            lowering=lowering,
            compiling=compiling,
            steps_at_once=timers.num_steps,
            steps_per_call=per_call,
            memory=memory,
        )
    )


def _as_many_as_take_a_second(timers: StepTimers, longest: int) -> int:
    timers.step()
    return int(np.clip(_SECONDS_OF_STEPS / timers.step(), 1, longest))


def _measure(
    parts: Parts, timers: StepTimers, products: list[Product], per_call: int, repeats: int
) -> tuple[dict[str, list[float]], int]:
    """Seconds of everything by name, turn by turn, and the size of the large product."""
    mesh, schedule = parts.mesh, parts.schedule
    tx = build.build_optimizer(parts.config, schedule.num_steps, schedule.steps_per_epoch)
    size, times = _LARGE.get(mesh.devices.flat[0].platform, _LARGE_ELSEWHERE)
    large = large_product_timer(mesh, size, times)
    large()
    rate = 2 * size**3 / large()
    own: dict[str, Timer] = {"step": timers.step, "host": lambda: timers.host(per_call)}
    others: dict[str, Timer] = {
        "large": large,
        "optimizer": optimizer_timer(tx, timers.state, parts.has_replicas, mesh),
        **products_timers(products, mesh, rate, build.steps_in_one_call(parts.model)),
    }
    if not parts.is_streamed:
        gather = gather_timer(np.asarray(parts.data.training.images), parts.order, mesh, schedule.longest)
        return in_turns({**own, "gather": gather, **others}, repeats), size
    # What reads ahead would go on while others have their turn.
    one_by_one = [
        *({name: timer} for name, timer in own.items()),
        {"reading": _reading_timer(parts, timers.num_steps)},
        others,
    ]
    found = {name: times for some in one_by_one for name, times in in_turns(some, repeats).items()}
    return found, size


def _reading_timer(parts: Parts, num_steps: int) -> Timer:
    training, train, data = parts.data.training, parts.config.train, parts.config.data
    assert isinstance(training.images, StreamedImages)
    batches = streamed_batches(
        training.images,
        training.labels if parts.model.num_classes else None,
        build.seeds_of(parts.config),
        0,
        parts.schedule.num_steps,
        train.batch_size,
        own_columns(parts.mesh, train.batch_size),
        data.workers,
        data.prefetch,
    )
    # So many that what lies ready at the start, and what is half done at the end, hardly counts.
    return reading_timer(batches, max(num_steps, 4 * data.prefetch))
