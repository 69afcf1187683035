"""Measured seconds as shares, rates and a table for people."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vae_jax.performance.measure import spread
from vae_jax.performance.parts import Parts
from vae_jax.performance.products import Product, total_flops


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        parts: Of what.
        seconds: By name, turn by turn: `step`, `host` (a call), `large` (a product), `optimizer` (a pass), `gather` or
            `reading` (a batch), and each of the products.
        shares_waited: Of the time of the steps, turn by turn.
        products: Of one device, in the order of their times in `seconds`.
        large_size: Rows and columns of the large product.
        lowering: Seconds of tracing and lowering.
        compiling: Seconds of the compiler.
        steps_at_once: Steps that were timed at once.
        steps_per_call: Steps in a call that the host makes.
        memory: From `memory_taken`.
    """

    parts: Parts
    seconds: dict[str, list[float]]
    shares_waited: list[float]
    products: list[Product]
    large_size: int
    lowering: float
    compiling: float
    steps_at_once: int
    steps_per_call: int
    memory: dict[str, int | None]


def report(found: Measurement) -> dict[str, Any]:
    """What `benchmark.json` holds of a measurement.

    Args:
        found: The measurement.

    Returns:
        Numbers, texts and None. What was timed several times is given by its median, minimum and maximum; a share of
        the step compares what was measured in the same turn.
    """
    step, config = np.array(found.seconds["step"]), found.parts.config
    images = config.train.batch_size * config.num_seeds
    return {
        "settings": {
            "repeats": len(step),
            "steps_at_once": found.steps_at_once,
            "steps_per_call": found.steps_per_call,
        },
        "compilation": {"trace_and_lower_seconds": found.lowering, "compile_seconds": found.compiling},
        "step": {
            "seconds": _spread(step),
            "images_per_second": _spread(images / step),
            "images": images,
            "image_shape": list(found.parts.data.dataset.image_shape),
            "replicas": config.num_seeds,
            "devices": found.parts.mesh.size,
            "over_products_and_optimizer": _spread(step / (_own(found) + np.array(found.seconds["optimizer"]))),
        },
        "products": _products(found, step),
        "optimizer": _part("optimizer", found, step),
        "input": _input(found, step, images),
        "host": _host(found, step),
        "memory_bytes": found.memory,
    }


def _products(found: Measurement, step: np.ndarray) -> dict[str, Any]:
    devices = found.parts.mesh.size
    flops = total_flops(found.parts.products())
    large = devices * 2 * found.large_size**3 / np.array(found.seconds["large"])
    together = _own(found)
    return {
        "flops_per_step": flops,
        "flops_per_second": _spread(flops / step),
        "large": {
            "size": found.large_size,
            "dtype": "float32",
            "flops_per_second": _spread(large),
            "share_reached": _spread(flops / step / large),
        },
        "own": {
            "seconds_per_step": _spread(together),
            "share_of_step": _spread(together / step),
            "kinds": [
                {
                    "product": str(product),
                    "count": product.count,
                    "flops": product.flops,
                    "seconds": _spread(times),
                    "flops_per_second": _spread(product.flops / times),
                }
                for product, times in _alone(found)
            ],
        },
    }


def _alone(found: Measurement) -> list[tuple[Product, np.ndarray]]:
    """Each product of one device with its seconds, turn by turn."""
    times = [np.array(seconds) for name, seconds in found.seconds.items() if name[0].isdigit()]
    return list(zip(found.products, times, strict=True))


def _own(found: Measurement) -> np.ndarray:
    """Seconds of all products of a step, turn by turn."""
    return sum((product.count * times for product, times in _alone(found)), np.zeros(len(found.seconds["step"])))


def _part(name: str, found: Measurement, step: np.ndarray) -> dict[str, Any]:
    seconds = np.array(found.seconds[name])
    return {"seconds": _spread(seconds), "share_of_step": _spread(seconds / step)}


def _input(found: Measurement, step: np.ndarray, images: int) -> dict[str, Any]:
    name = "reading" if found.parts.is_streamed else "gather"
    seconds = np.array(found.seconds[name])
    return {
        "kind": "streamed" if found.parts.is_streamed else "resident",
        **_part(name, found, step),
        "batches_per_second": _spread(1.0 / seconds),
        "images_per_second": _spread(images / seconds),
        "share_waited": _spread(found.shares_waited) if found.parts.is_streamed else None,
    }


def _host(found: Measurement, step: np.ndarray) -> dict[str, Any]:
    host, device = np.array(found.seconds["host"]), step * found.steps_per_call
    return {
        "seconds_per_call": _spread(host),
        "seconds_per_step": _spread(host / found.steps_per_call),
        "share_if_not_hidden": _spread(host / (host + device)),
    }


def _spread(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    return spread(values)._asdict()


def table(result: dict[str, Any]) -> str:
    """The most important numbers for people.

    Args:
        result: From `report`.
    """
    step, products, host = result["step"], result["products"], result["host"]
    large, own, optimizer, fed = products["large"], products["own"], result["optimizer"], result["input"]
    memory, compilation = result["memory_bytes"], result["compilation"]
    waited = f", {_percent(fed['share_waited'])} of the steps' time waited" if fed["share_waited"] else ""
    of = f"{step['images']} images of {'x'.join(map(str, step['image_shape']))}"
    of += f", {step['devices']} devices" if step["devices"] > 1 else ""
    rows = [
        ("step", f"{_time(step['seconds'])}, {_range(step['images_per_second'], '{:,.0f}')} images/s ({of})"),
        (
            f"  of the rate of a {large['size']}² product",
            f"{_percent(large['share_reached'])} of {large['flops_per_second']['median'] / 1e9:,.0f} GFLOP/s",
        ),
        (
            "  its own products, alone",
            f"{_time(own['seconds_per_step'])}, {_percent(own['share_of_step'])} of the step",
        ),
        ("  optimizer, alone", f"{_time(optimizer['seconds'])}, {_percent(optimizer['share_of_step'])} of the step"),
        (
            f"  batches, {fed['kind']}",
            f"{_time(fed['seconds'])}, {_percent(fed['share_of_step'])} of the step{waited}",
        ),
        (
            "host, hidden behind the steps",
            f"{_time(host['seconds_per_call'])} a call of {result['settings']['steps_per_call']} steps; "
            f"{_percent(host['share_if_not_hidden'])} would be lost",
        ),
        (
            "compilation",
            f"{compilation['trace_and_lower_seconds']:.2f} s tracing and lowering, "
            f"{compilation['compile_seconds']:.2f} s compiling",
        ),
        (
            "memory",
            f"{_bytes(memory['compiled_total'])} planned on a device, of which "
            f"{_bytes(memory['compiled_intermediates'])} intermediate; {_bytes(memory['device_peak'])} used on it at "
            f"most; process {_bytes(memory['process_resident'])} now, {_bytes(memory['process_peak'])} at most",
        ),
    ]
    return "\n".join(f"{name:<34} {text}" for name, text in rows)


def _range(values: dict[str, float], form: str) -> str:
    return f"{form.format(values['median'])} ({form.format(values['minimum'])} to {form.format(values['maximum'])})"


def _percent(values: dict[str, float]) -> str:
    return _range(values, "{:.1%}")


def _of_step(part: dict[str, Any]) -> str:
    return f"{_percent(part['share_of_step'])} of the step"


def _time(seconds: dict[str, float]) -> str:
    unit, factor = next(
        ((unit, factor) for unit, factor in (("s", 1.0), ("ms", 1e3)) if seconds["median"] * factor >= 0.1), ("µs", 1e6)
    )
    return _range({name: value * factor for name, value in seconds.items()}, "{:.3g}") + f" {unit}"


def _bytes(count: int | None) -> str:
    if count is None:
        return "unknown"
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
