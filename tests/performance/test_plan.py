"""Plans on simulated CPU devices, which need no libtpu: facts against counts by hand; estimates and names by hand."""

import dataclasses
from typing import Any

import jax
import pytest

from vae_jax.config import Config, ModelConfig, TrainConfig
from vae_jax.errors import UserError
from vae_jax.performance import plan as planning
from vae_jax.performance.chips import CHIPS, parse_topology
from vae_jax.performance.plan import ImageFacts, plan_step

FACTS = ImageFacts((5, 6, 1), num_images=100, num_classes=3)
MODEL = ModelConfig(network="mlp(hidden=(12,))", latents=3)
BATCH = 16
# 30-12-(3, 3) and 3-12-30: a product forward, one for its weights, and one for what went into all but the first.
PER_IMAGE = 2 * (2 * (30 * 12 + 12 * 6 + 3 * 12 + 12 * 30) + (12 * 6 + 3 * 12 + 12 * 30))
PARAMETERS = 30 * 12 + 12 + 12 * 6 + 6 + 3 * 12 + 12 + 12 * 30 + 30


@pytest.fixture(autouse=True)
def on_simulated_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight chips of a slice that is this machine."""
    monkeypatch.setattr(planning, "_devices", lambda topology: jax.devices())


def plan_of(facts: ImageFacts = FACTS, batch_size: int = BATCH, accumulation: int = 1, **changes) -> dict[str, Any]:
    train = TrainConfig(batch_size=batch_size, accumulation=accumulation)
    return plan_step(Config(train=train, **{"model": MODEL, **changes}), facts, parse_topology("v5e:2x4"))


def flops_of(facts: ImageFacts = FACTS, **changes) -> int:
    return plan_of(facts, **changes)["estimate"]["flops"]


def test_numbers_are_those_of_one_chip() -> None:
    plan = plan_of()
    assert (plan["topology"], plan["num_chips"], plan["used_chips"], plan["batch_size"]) == ("v5e:2x4", 8, 8, BATCH)
    estimate, memory = plan["estimate"], plan["memory"]
    # Products, and the optimizer's and the likelihood's operations, which weigh much in so small a model.
    products = BATCH // 8 * PER_IMAGE
    assert products <= estimate["flops"] <= products + 40 * PARAMETERS + BATCH // 8 * 10_000
    assert estimate["compute_seconds"] == pytest.approx(estimate["flops"] / 197e12)
    assert estimate["memory_seconds"] == pytest.approx(estimate["bytes_accessed"] / 819e9)
    state = 4 * (3 * PARAMETERS + 2)  # Adam keeps two numbers for each parameter; two counters
    images = 95 * 30  # without those for validation
    assert state + images <= memory["arguments"] <= state + images + 200
    assert state <= memory["aliased"] <= memory["outputs"] <= state + 400
    assert memory["needed"] == memory["arguments"] + memory["outputs"] - memory["aliased"] + memory["temporaries"]
    assert plan["fits"]
    streamed = plan_of(dataclasses.replace(FACTS, streamed=True))["memory"]["arguments"]
    assert memory["arguments"] - streamed > 90 * 30


@pytest.mark.long
def test_replicas_labels_and_parts_of_a_batch_count() -> None:
    one = flops_of()
    assert flops_of(num_seeds=3) == pytest.approx(3 * one, rel=0.1)
    # Each image and each z is three numbers longer.
    conditional = dataclasses.replace(MODEL, conditional=True)
    assert flops_of(model=conditional) > one
    with pytest.raises(UserError, match="labels"):
        plan_of(dataclasses.replace(FACTS, num_classes=0), model=conditional)
    facts = dataclasses.replace(FACTS, num_images=200)
    whole, parts = (flops_of(facts, batch_size=128, accumulation=each) for each in (1, 4))
    assert 16 * PER_IMAGE <= whole <= 1.1 * parts <= 4 * whole


@pytest.mark.long
def test_no_pixel_takes_memory_and_not_all_chips_are_needed() -> None:
    plan = plan_of(ImageFacts((64, 64, 3), num_images=2_000_000), batch_size=12)
    assert plan["memory"]["arguments"] > 1_900_000 * 64 * 64 * 3 and not plan["fits"]
    assert plan["used_chips"] == 6 and plan["estimate"]["flops"] >= 2 * PER_IMAGE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 96}, "at most 95"),
        ({"accumulation": 3}, "accumulation"),
        ({"objective": "nothing"}, "objective"),
    ],
)
def test_a_config_that_cannot_be_trained_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan_of(**changes)


@pytest.mark.parametrize(
    ("message", "gigabytes"),
    [
        (
            "Ran out of memory, the total memory required for HLO temporaries (50.00G) exceeds available HBM (30.75G).",
            50,
        ),
        ("Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm. Exceeded", 20.5),
        ("INTERNAL: a bug", None),
    ],
)
def test_only_a_refusal_for_memory_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, message: str, gigabytes: float | None
) -> None:
    def refuse(*_: object) -> None:
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {message}" if gigabytes else message)

    monkeypatch.setattr(planning.ResidentSteps, "compile", refuse)
    if gigabytes is None:
        with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
            plan_of()
        with pytest.raises(UserError, match=r"only 6 of the 8 chips of v5e:2x4, .* --config\.train\.batch_size=16"):
            plan_of(batch_size=12)
        return
    plan = plan_of()
    unknown = dict.fromkeys(("arguments", "outputs", "aliased", "temporaries"))
    needed = {"needed": int(gigabytes * 2**30), "available": CHIPS["v5e"].memory_bytes}
    assert plan["memory"] == {**unknown, **needed} and (plan["fits"], plan["estimate"]) == (False, None)


@pytest.mark.parametrize(
    ("name", "num_chips"), [("v5e:16x16", 256), ("v6e:1x1", 1), ("v5p:4x4x4", 64), ("v4:2x2x1", 4)]
)
def test_names_of_slices(name: str, num_chips: int) -> None:
    topology = parse_topology(name)
    assert (topology.num_chips, topology.chip) == (num_chips, CHIPS[name.partition(":")[0]])


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        *(("v5e", "'v5e' names no"), ("v5e:2x", "names no"), ("v9:2x2", "no TPU 'v9'"), ("v5e:2x2x2", "2 axes")),
        *(("v4:2x2", "3 axes"), ("v5e:32x32", "1 to 256 chips"), ("v5e:0x4", "1 to 256 chips")),
    ],
)
def test_names_of_no_slice_are_refused(name: str, cause: str) -> None:
    with pytest.raises(UserError, match=cause) as caught:
        parse_topology(name)
    assert "--topology=v5e:2x4" in str(caught.value)
