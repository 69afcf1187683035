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

FACTS = ImageFacts((5, 6, 1), num_images=100, context_size=3)
MODEL = ModelConfig(network="mlp(hidden=(12,))", latents=3)
BATCH = 16
# 30-12-(3, 3) and 3-12-30: a product forward, one for its weights, and one for what went into all but the first.
PER_IMAGE = 2 * (2 * (30 * 12 + 12 * 6 + 3 * 12 + 12 * 30) + (12 * 6 + 3 * 12 + 12 * 30))
PARAMETERS = 30 * 12 + 12 + 12 * 6 + 6 + 3 * 12 + 12 + 12 * 30 + 30


@pytest.fixture(autouse=True)
def on_simulated_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight chips of a slice that is this machine."""
    monkeypatch.setattr(planning, "_devices", lambda topology: jax.devices())


def plan_of(config: Config, facts: ImageFacts = FACTS) -> dict[str, Any]:
    return plan_step(config, facts, parse_topology("v5e:2x4"))


def config_of(batch_size: int = BATCH, accumulation: int = 1, **changes) -> Config:
    train = TrainConfig(batch_size=batch_size, accumulation=accumulation)
    return Config(train=train, **{"model": MODEL, **changes})


def flops_of(config: Config, facts: ImageFacts = FACTS) -> int:
    return plan_of(config, facts)["flops"]


def test_step_is_divided_over_the_chips() -> None:
    plan = plan_of(config_of())
    assert [plan[name] for name in ("topology", "num_chips", "used_chips")] == ["v5e:2x4", 8, 8]
    assert plan["fits"]
    # Products, and the optimizer's and the likelihood's operations, which weigh much in so small a model.
    products = BATCH // 8 * PER_IMAGE
    assert products <= plan["flops"] <= products + 40 * PARAMETERS + BATCH // 8 * 10_000


def test_arguments_are_state_images_and_batch() -> None:
    memory = plan_of(config_of())["memory"]
    state = 4 * (3 * PARAMETERS + 2)  # Adam keeps two numbers for each parameter; two counters
    images = 95 * 30  # without those for validation
    assert state + images <= memory["arguments"] <= state + images + 200
    assert state <= memory["aliased"] <= memory["outputs"] <= state + 400
    assert memory["needed"] == memory["arguments"] + memory["outputs"] - memory["aliased"] + memory["temporaries"]


def test_batch_that_not_all_chips_divide() -> None:
    plan = plan_of(config_of(batch_size=12))
    assert plan["used_chips"] == 6
    assert plan["flops"] >= 2 * PER_IMAGE


@pytest.mark.long
def test_parts_of_a_batch_all_count() -> None:
    facts = FACTS._replace(num_images=200)
    whole, parts = (flops_of(config_of(batch_size=128, accumulation=each), facts) for each in (1, 4))
    assert 16 * PER_IMAGE <= whole <= 1.1 * parts <= 4 * whole


def test_replicas_count_each() -> None:
    assert flops_of(config_of(num_seeds=3)) == pytest.approx(3 * flops_of(config_of()), rel=0.1)


def test_labels_are_known_by_their_number() -> None:
    model = dataclasses.replace(MODEL, conditional=True)
    # Each image and each z is three numbers longer.
    assert flops_of(config_of(model=model)) > flops_of(config_of())
    with pytest.raises(UserError, match="labels"):
        plan_of(config_of(model=model), FACTS._replace(context_size=0))


def test_streamed_images_are_no_arguments() -> None:
    resident, streamed = (plan_of(config_of(), FACTS._replace(streamed=each)) for each in (False, True))
    assert resident["memory"]["arguments"] - streamed["memory"]["arguments"] > 90 * 30


def test_no_pixel_takes_memory() -> None:
    many = ImageFacts((64, 64, 3), num_images=2_000_000)
    plan = plan_of(config_of(), many)
    assert plan["memory"]["arguments"] > 1_900_000 * 64 * 64 * 3
    assert not plan["fits"]


def test_config_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UserError, match="at most 95"):
        plan_of(config_of(batch_size=96))
    with pytest.raises(UserError, match=r"train\.accumulation"):
        plan_of(config_of(accumulation=3))
    with pytest.raises(UserError, match="objective"):
        plan_of(config_of(objective="nothing"))


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (50.00G) "
            "exceeds available HBM (30.75G).",
            50 * 2**30,
        ),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm. Exceeded", 20.5 * 2**30),
    ],
)
def test_refusal_for_memory_is_an_answer(monkeypatch: pytest.MonkeyPatch, message: str, needed: float) -> None:
    def refuse(*_: object) -> None:
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(planning.ResidentSteps, "compile", refuse)
    plan = plan_of(config_of())
    assert plan["memory"] == {"needed": int(needed), "available": CHIPS["v5e"].memory_bytes}
    assert not plan["fits"] and "flops" not in plan


def test_refusal_for_another_reason_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.setattr(planning.ResidentSteps, "compile", refuse)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        plan_of(config_of())
    with pytest.raises(UserError, match=r"only 6 of the 8 chips of v5e:2x4, .* --config\.train\.batch_size=16"):
        plan_of(config_of(batch_size=12))


def test_estimate_is_at_the_rates_of_the_chip() -> None:
    estimate = plan_of(config_of())
    assert estimate["compute_seconds"] == pytest.approx(estimate["flops"] / 197e12)
    assert estimate["memory_seconds"] == pytest.approx(estimate["bytes_accessed"] / 819e9)


@pytest.mark.parametrize(
    ("name", "kind", "num_chips"),
    [("v5e:16x16", "v5e", 256), ("v6e:1x1", "v6e", 1), ("v5p:4x4x4", "v5p", 64), ("v4:2x2x1", "v4", 4)],
)
def test_names_of_slices(name: str, kind: str, num_chips: int) -> None:
    topology = parse_topology(name)
    assert (topology.kind, topology.num_chips, topology.chip) == (kind, num_chips, CHIPS[kind])


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("v5e", "'v5e' names no TPU slice: v5e has 2 axes"),
        ("v5e:2x", "names no"),
        ("v9:2x2", "choose from v4, v5e"),
        ("v5e:2x2x2", "2 axes"),
        ("v4:2x2", "3 axes"),
        ("v5e:32x32", "1 to 256 chips"),
        ("v5e:0x4", "1 to 256 chips"),
    ],
)
def test_names_of_no_slice(name: str, cause: str) -> None:
    with pytest.raises(UserError, match=cause) as caught:
        parse_topology(name)
    assert "--topology=" in str(caught.value)
