"""The verb `benchmark` on a tiny model: what it writes, and that its numbers fit together."""

import math
import pathlib
from typing import Any

import pytest
from tiny_runs import MODEL, read_json

from vae_jax.cli import main
from vae_jax.performance import benchmark

BATCH, PIXELS, HIDDEN, LATENTS = 64, 64, 8, 2


def spreads(tree: Any) -> list[dict]:
    """Every median with its range."""
    if isinstance(tree, dict) and set(tree) == {"median", "minimum", "maximum"}:
        return [tree]
    branches = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [found for branch in branches for found in spreads(branch)]


def measured(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict:
    """What the verb writes, after checks of what has to be so of any measurement."""
    # Nobody waits for precise times on devices that share two cores.
    monkeypatch.setattr(benchmark, "_LARGE", {"cpu": (64, 1)})
    main(["benchmark", *MODEL, "--repeats=2", "--steps=3", *arguments])
    result = read_json(pathlib.Path("benchmark.json"))
    assert spreads(result)
    for values in spreads(result):
        assert 0 <= values["minimum"] <= values["median"] <= values["maximum"] < math.inf
    step, large = result["step"], result["large_product"]
    fastest, slowest = step["seconds"]["minimum"], step["seconds"]["maximum"]
    assert fastest > 0 and step["images_per_second"]["maximum"] == pytest.approx(step["images"] / fastest)
    lowest = step["flops"] / slowest / large["flops_per_second"]["maximum"]
    assert large["share_reached"]["minimum"] >= lowest * (1 - 1e-9)
    assert result["compilation"]["trace_and_lower_seconds"] > 0 and result["compilation"]["compile_seconds"] > 0
    assert result["memory_bytes"]["process_peak"] > 0
    return result


@pytest.mark.long
def test_numbers_are_those_of_the_digits(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    result = measured(monkeypatch)
    assert result["settings"] == {"repeats": 2, "steps_at_once": 3, "steps_per_call": 100}
    sizes = [PIXELS * HIDDEN, HIDDEN * LATENTS, HIDDEN * LATENTS, LATENTS * HIDDEN, HIDDEN * PIXELS]
    products = 2 * BATCH * (3 * sum(sizes) - PIXELS * HIDDEN)
    # Hashes for the order and the noise count too, on each of eight devices.
    assert products <= result["step"]["flops"] <= products + 2e7
    assert (result["step"]["images"], result["step"]["replicas"], result["step"]["devices"]) == (BATCH, 1, 8)
    assert result["share_waited_for_images"] is None and result["memory_bytes"]["compiled_total"] > 64 * 1000
    assert result["config"]["model.latents"] == 2 and result["data"]["image_shape"] == [8, 8, 1]
    assert result["machine"]["devices"] == ["cpu: cpu"] * 8
    assert "all of it is in benchmark.json" in capsys.readouterr().out


@pytest.mark.long
def test_replicas_of_random_images_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    random = ["--image_shape=4,3,2", "--num_images=70", "--config.model.conditional=True", "--config.num_seeds=2"]
    result = measured(monkeypatch, *random, "--config.train.batch_size=5", "--config.train.log_every=2")
    assert (result["step"]["images"], result["step"]["replicas"], result["step"]["devices"]) == (10, 2, 5)
    # Three steps at once need two calls.
    assert result["settings"]["steps_per_call"] == 2
    assert result["data"] == {"name": "random images", "num_images": 70, "image_shape": [4, 3, 2]}
