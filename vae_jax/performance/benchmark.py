"""How fast the training step of a config is on this machine."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vae_jax import build
from vae_jax.config import Config
from vae_jax.data import Dataset
from vae_jax.memory import planned_memory
from vae_jax.sharding import batch_mesh, put, replicated

# Rows and columns of a product that is large enough to reach the device's rate.
_LARGE = {"cpu": 2048}
_LARGE_ELSEWHERE = 8192
# No learning rate schedule ends while steps are timed.
_ENOUGH_STEPS = 10**8


def benchmark(
    config: Config,
    data: Dataset,
    repeats: int,
    num_steps: int = 0,
    on_compiled: Callable[[jax.stages.Compiled, Mesh], None] = lambda compiled, mesh: None,
) -> dict[str, Any]:
    """Times the training step of a config, and one large matrix product in alternation with it.

    Args:
        config: The run, complete and checked.
        data: What it trains on.
        repeats: How often both are timed.
        num_steps: Steps that are timed at once; 0 for as many as take a second, up to the most that training makes
            per call.
        on_compiled: Called with the compiled steps and the mesh, before anything is put on the
            devices.

    Returns:
        Numbers by name; of what was timed several times the median, minimum and maximum. `seconds` and `flops` are
        those of a step, `memory` has the bytes on a device, see `planned_memory`.
    """
    schedule = build.build_schedule(config, len(data.training.images))
    longest = schedule.longest
    schedule = dataclasses.replace(schedule, log_every=longest, num_steps=_ENOUGH_STEPS)
    model, mesh = build.build_model_for(config, data), batch_mesh(config.train.batch_size)
    steps = build.build_steps(config, model, data, schedule, mesh)

    def fresh() -> Any:
        return build.build_state(config, model, data.image_shape, schedule.num_steps)

    like, began = jax.eval_shape(fresh), time.perf_counter()
    compiled = steps.compile(like)
    compiling = time.perf_counter() - began
    on_compiled(compiled, mesh)
    state, taken = jax.jit(fresh, out_shardings=replicated(mesh))(), 0

    def seconds_per_step(count: int) -> float:
        """As in training: a call is given before the one before it is done."""
        nonlocal state, taken
        began, end, metrics = time.perf_counter(), taken + count, None
        while taken < end:
            now = min(longest, end - taken)
            state, metrics = steps(state, taken, now)
            taken += now
        jax.block_until_ready((state, metrics))
        return (time.perf_counter() - began) / count

    seconds_per_step(1)
    num_steps = num_steps or int(np.clip(1.0 / seconds_per_step(1), 1, longest))
    size = _LARGE.get(mesh.devices.flat[0].platform, _LARGE_ELSEWHERE)
    seconds_per_product = large_product(size, mesh)
    seconds_per_product()
    seconds_per_step(num_steps)
    timed = [(seconds_per_step(num_steps), seconds_per_product()) for _ in range(repeats)]
    step, product = np.array(timed).T
    # The body of a loop is counted once, so this is one step of one device.
    flops = (compiled.cost_analysis() or {}).get("flops", 0.0) * config.train.accumulation * mesh.size
    rate, images = mesh.size * 2 * size**3 / product, config.train.batch_size * config.num_seeds
    return {
        "images": images,
        "devices": mesh.size,
        "repeats": repeats,
        "steps_at_once": num_steps,
        "seconds": _spread(step),
        "images_per_second": _spread(images / step),
        "flops": flops,
        "large_product": {"size": size, "flops_per_second": _spread(rate)},
        "share_of_large_product": _spread(flops / step / rate),
        "compile_seconds": compiling,
        "memory": planned_memory(compiled),
    }


def table(result: dict[str, Any]) -> str:
    """The numbers of `benchmark` for people."""
    product, memory = result["large_product"], result["memory"]
    needed, between = (f"{memory[name] / 2**20:,.0f} MB" for name in ("needed", "temporaries"))
    rows = {
        "step": f"{_range(result['seconds'], '{:.3g}', 1e3)} ms",
        "images per second": f"{_range(result['images_per_second'], '{:,.0f}')}, {result['images']} in a step",
        f"share of a {product['size']}² product's rate": f"{_range(result['share_of_large_product'], '{:.1%}')} of "
        f"{product['flops_per_second']['median'] / 1e9:,.0f} GFLOP/s",
        "compilation": f"{result['compile_seconds']:.2f} s",
        "memory": f"{needed} on each of {result['devices']} devices, {between} of it between",
    }
    return "\n".join(f"{name:<34} {text}" for name, text in rows.items())


def large_product(size: int, mesh: Mesh) -> Callable[[], float]:
    """A function that returns the seconds of a large float32 product, on all devices at once."""
    same = replicated(mesh)
    matrix = put(np.random.default_rng(0).normal(size=(size, size)).astype(np.float32), same)
    product = jax.jit(jnp.matmul, in_shardings=same, out_shardings=same)

    def seconds() -> float:
        began = time.perf_counter()
        jax.block_until_ready(product(matrix, matrix))
        return time.perf_counter() - began

    return seconds


def _spread(values: np.ndarray) -> dict[str, float]:
    return {name: float(of(values)) for name, of in (("median", np.median), ("minimum", np.min), ("maximum", np.max))}


def _range(values: dict[str, float], form: str, factor: float = 1.0) -> str:
    median, low, high = (form.format(factor * values[name]) for name in ("median", "minimum", "maximum"))
    return f"{median} ({low} to {high})"
