"""How fast the training step of a config is on this machine."""

import dataclasses
import resource
import sys
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
from vae_jax.data.streamed import StreamedImages
from vae_jax.sharding import batch_mesh, put, replicated
from vae_jax.training import ResidentSteps, StreamedSteps, TrainState

# Rows and columns of a product that is large enough to reach the device's rate, and how often it is repeated.
_LARGE = {"cpu": (2048, 1)}
_LARGE_ELSEWHERE = (8192, 3)
# No learning rate schedule ends while steps are timed.
_ENOUGH_STEPS = 10**8
_SHOWN_MEMORY = ("compiled_total", "compiled_intermediates", "process_peak")
_COMPILATION = "/jax/core/compile/backend_compile_duration"


def benchmark(
    config: Config,
    data: Dataset,
    repeats: int,
    num_steps: int,
    on_compiled: Callable[[jax.stages.Compiled, Mesh], None],
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
        Numbers, texts and None. What was timed several times is given by its median, minimum and maximum.
    """
    images = data.training.images
    schedule = build.build_schedule(config, len(images))
    longest = schedule.longest
    schedule = dataclasses.replace(schedule, log_every=longest, num_steps=_ENOUGH_STEPS)
    model, mesh = build.build_model_for(config, data), batch_mesh(config.train.batch_size)
    steps = build.build_steps(config, model, data, schedule, mesh)

    def fresh() -> TrainState:
        return build.build_state(config, model, data.image_shape, schedule.num_steps)

    compiled, lowering, compiling = _compile(steps, jax.eval_shape(fresh))
    on_compiled(compiled, mesh)
    run = _Run(steps, jax.jit(fresh, out_shardings=replicated(mesh))(), longest)
    run.seconds_per_step(1)
    num_steps = num_steps or int(np.clip(1.0 / run.seconds_per_step(1), 1, longest))
    size, product = _large_product(mesh)
    product()
    run.seconds_per_step(num_steps)
    timed = [(run.seconds_per_step(num_steps), run.share_waited, product()) for _ in range(repeats)]
    step, waited, large = (np.array(column) for column in zip(*timed, strict=True))
    # The body of a loop is counted once, so this is one step of one device.
    flops = (compiled.cost_analysis() or {}).get("flops", 0.0) * config.train.accumulation * mesh.size
    rate = mesh.size * 2 * size**3 / large
    return {
        "settings": {"repeats": repeats, "steps_at_once": num_steps, "steps_per_call": steps.steps_per_call},
        "compilation": {"trace_and_lower_seconds": lowering, "compile_seconds": compiling},
        "step": {
            "seconds": _spread(step),
            "images_per_second": _spread(config.train.batch_size * config.num_seeds / step),
            "images": config.train.batch_size * config.num_seeds,
            "image_shape": list(data.image_shape),
            "replicas": config.num_seeds,
            "devices": mesh.size,
            "flops": flops,
        },
        "large_product": {
            "size": size,
            "flops_per_second": _spread(rate),
            "share_reached": _spread(flops / step / rate),
        },
        "share_waited_for_images": _spread(waited) if isinstance(images, StreamedImages) else None,
        "memory_bytes": _memory(compiled),
    }


def table(result: dict[str, Any]) -> str:
    """The most important numbers of `benchmark` for people."""
    step, large, memory = result["step"], result["large_product"], result["memory_bytes"]
    compilation, waited = result["compilation"], result["share_waited_for_images"]
    devices = f", {step['devices']} devices" if step["devices"] > 1 else ""
    images = f"{step['images']} images of {'x'.join(map(str, step['image_shape']))}{devices}"
    rate = f"{large['flops_per_second']['median'] / 1e9:,.0f} GFLOP/s"
    tracing, compiling = compilation["trace_and_lower_seconds"], compilation["compile_seconds"]
    total, between, process = (f"{memory[name] / 2**20:,.0f} MB" for name in _SHOWN_MEMORY)
    rows = [
        ("step", f"{_range(step['seconds'], '{:.3g}', 1e3)} ms"),
        ("images per second", f"{_range(step['images_per_second'], '{:,.0f}')} ({images})"),
        (f"share of a {large['size']}² product's rate", f"{_range(large['share_reached'], '{:.1%}')} of {rate}"),
        *([] if waited is None else [("time waited for images", _range(waited, "{:.1%}"))]),
        ("compilation", f"{tracing:.2f} s tracing and lowering, {compiling:.2f} s compiling"),
        ("memory", f"{total} planned on a device, {between} of it intermediate; process {process} at most"),
    ]
    return "\n".join(f"{name:<34} {text}" for name, text in rows)


class _Run:
    """Steps that continue from one timing to the next."""

    def __init__(self, steps: ResidentSteps | StreamedSteps, state: TrainState, longest: int) -> None:
        self._steps, self._state, self._step, self._longest = steps, state, 0, longest
        self.share_waited = 0.0

    def seconds_per_step(self, num_steps: int) -> float:
        """As in training: a call is given before the one before it is done."""
        waited = self._seconds_waited
        began, end, metrics = time.perf_counter(), self._step + num_steps, None
        while self._step < end:
            now = min(self._longest, end - self._step)
            self._state, metrics = self._steps(self._state, self._step, now)
            self._step += now
        jax.block_until_ready((self._state, metrics))
        seconds = time.perf_counter() - began
        self.share_waited = (self._seconds_waited - waited) / seconds
        return seconds / num_steps

    @property
    def _seconds_waited(self) -> float:
        return self._steps.seconds_waited if isinstance(self._steps, StreamedSteps) else 0.0


def _compile(steps: ResidentSteps | StreamedSteps, state: TrainState) -> tuple[jax.stages.Compiled, float, float]:
    """The compiled steps, the seconds of tracing and lowering, and those of the compiler."""
    compiling = 0.0

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        nonlocal compiling
        compiling += duration_secs if event == _COMPILATION else 0.0

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        began = time.perf_counter()
        compiled = steps.compile(state)
        seconds = time.perf_counter() - began
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return compiled, seconds - compiling, compiling


def _large_product(mesh: Mesh) -> tuple[int, Callable[[], float]]:
    """The size of a large float32 product, and a function that returns the seconds of one, on all devices at once."""
    size, times = _LARGE.get(mesh.devices.flat[0].platform, _LARGE_ELSEWHERE)
    same = replicated(mesh)
    matrix = put(np.random.default_rng(0).normal(size=(size, size)).astype(np.float32) / size**0.5, same)
    product = jax.jit(jnp.matmul, in_shardings=same, out_shardings=same)

    def seconds() -> float:
        began, result = time.perf_counter(), matrix
        for _ in range(times):
            result = product(result, matrix)
        jax.block_until_ready(result)
        return (time.perf_counter() - began) / times

    return size, seconds


def _memory(compiled: jax.stages.Compiled) -> dict[str, int | None]:
    """Bytes that the compiler plans for a device, the most a device has used, and the most of this process."""
    analysis, stats = compiled.memory_analysis(), jax.local_devices()[0].memory_stats() or {}
    assert analysis is not None
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    # Linux counts in KB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "compiled_total": analysis.argument_size_in_bytes + results + analysis.temp_size_in_bytes,
        "compiled_intermediates": analysis.temp_size_in_bytes,
        "device_peak": stats.get("peak_bytes_in_use"),
        "process_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    return {name: float(of(values)) for name, of in (("median", np.median), ("minimum", np.min), ("maximum", np.max))}


def _range(values: dict[str, float], form: str, factor: float = 1.0) -> str:
    median, low, high = (form.format(factor * values[name]) for name in ("median", "minimum", "maximum"))
    return f"{median} ({low} to {high})"
