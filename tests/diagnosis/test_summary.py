"""Advice and sentences from measurements written out by hand."""

import itertools
import shlex
from collections.abc import Callable

import pytest

from vae_jax.build import resolve_parts
from vae_jax.build.model import POSTERIORS, PRIORS
from vae_jax.cli import train
from vae_jax.cli.flags import parse, read_config
from vae_jax.config import Config, ModelConfig
from vae_jax.diagnosis import advice, sentences, table


def config(objective: str = "elbo", **model) -> Config:
    chosen = ModelConfig(**{"network": "mlp(hidden=(400,))", **model})
    return resolve_parts(Config(model=chosen, objective=objective))


def spoken_of(result: dict, of: Config) -> str:
    result["advice"] = advice(result, of)
    return "\n".join([table(result), *sentences(result)])


def entry(mean: float, error: float | None = 0.01, **more) -> dict:
    errors = {"standard_error_images": 0.1, "standard_error_estimator": error, "num_images": 200}
    return {"mean": mean, **errors, **more}


def measured() -> dict:
    simulated = {"below": -107.9, "above": -107.8, "width": entry(0.1, None)}
    agree = entry(0.01, verdict="agree")
    sharpness = {"samples": 1.25, "sample_means": 0.15, "reconstructions": 1.1, "reconstruction_means": 0.2}
    return {
        "likelihood": {
            "elbo": entry(-99.0),
            "importance_encoder": entry(-94.0, effective_sample_size=8.0),
            "importance_optimized": entry(-92.5, effective_sample_size=140.0),
            "log_likelihood": entry(-92.5, method="importance_optimized"),
        },
        "gaps": {
            **{"total": entry(6.5), "approximation": entry(2.0), "amortization": entry(4.5)},
            "flow_over_diagonal": entry(1.5),
        },
        "annealed": entry(-92.4, num_images=50, minus_importance=agree, simulated=simulated),
        "noise": {"gain": None, "reason": "Bernoulli has no noise whose width could be refitted"},
        "latents": {
            **{"active_units": 20, "latents": 20},
            "aggregate": {"mutual_information": [8.5, 24.0], "aggregate_kl": [2.5, 18.0], "standard_error": 0.1},
            "label_accuracy": {"nearest_neighbours": 0.94, "logistic_regression": 0.87},
        },
        "sharpness": {"high_frequency_ratio": sharpness},
        "distances": {"features": "random_convolutions", "samples": 0.18, "training_images": 0.0075},
        "nearest": {"samples_to_training": 6.0, "reconstructions_to_training": 5.5, "ratio": 1.09},
    }


@pytest.mark.parametrize(
    ("part", "name", "value", "line"),
    [
        ("gaps", "approximation", entry(9.0), "--config.model.posterior=iaf"),
        ("gaps", "amortization", entry(9.0), "--config.model.network.hidden='(400, 400)'"),
        (
            "latents",
            "aggregate",
            {"aggregate_kl": [9.0, 18.0], "standard_error": 0.1},
            "--config.model.prior=vampprior",
        ),
        ("noise", "gain", entry(9.0), "--config.model.likelihood.learned=True"),
    ],
)
def test_the_part_that_costs_most_is_tried_first(part: str, name: str, value: dict, line: str) -> None:
    result = measured()
    result["noise"]["factor"] = 0.3
    result[part][name] = value
    found = advice(result, config(likelihood="gaussian" if part == "noise" else "bernoulli"))
    assert (found["line"], found["nats"]) == (line, 9.0)


def test_gaps_of_a_bound_of_many_samples_are_no_reason_to_change() -> None:
    assert advice(measured(), config("iwae"))["line"] == "--config.model.prior=vampprior"
    flow = measured()
    flow["latents"]["aggregate"] = None
    assert advice(flow, config("dreg"))["line"] is None


@pytest.mark.long
def test_what_is_proposed_is_not_in_use_and_can_be_typed() -> None:
    for posterior, prior in itertools.product(POSTERIORS, PRIORS):
        if posterior == "point_mass" or (posterior == "hierarchical") != (prior == "hierarchical"):
            continue
        for gaps in ((9.0, 1.0), (1.0, 9.0), (1.0, 1.0)):
            result = measured()
            result["gaps"]["approximation"]["mean"], result["gaps"]["amortization"]["mean"] = gaps
            line = advice(result, config(posterior=posterior, prior=prior))["line"]
            parts = [f"--config.model.posterior={posterior}", f"--config.model.prior={prior}"]
            more = [*parts, *shlex.split(line)]
            before, after = (resolve_parts(read_config(parse(train, flags))) for flags in (parts, more))
            assert before != after


def test_the_summary_names_every_number() -> None:
    spoken = spoken_of(measured(), config())
    for part in (
        *("6.50 nats lie between the bound and log p(x): 2.00 because the family", "4.50 because the encoder"),
        *("agrees with importance sampling", "between -107.90 and -107.80", "Nothing to refit: Bernoulli"),
        "0.15 of the data's power, samples from it 1.25",
        *("Try first: --config.model.network.hidden='(400, 400)'", "up to 4.50 nats"),
    ):
        assert part in spoken
    for part in ("memorizing", "in use", "effective samples log p(x) is a lower bound"):
        assert part not in spoken


def change(*path: str, **values) -> Callable[[dict], None]:
    """Puts values into a part of what is measured."""

    def apply(result: dict) -> None:
        for name in path:
            result = result[name]
        result.update(values)

    return apply


LIKELIHOOD = ("annealed", "minus_importance")
SHARPNESS = ("sharpness", "high_frequency_ratio")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (change(*LIKELIHOOD, **entry(1.5, verdict="believe annealed")), "1.50 nats above importance sampling"),
        (change(*LIKELIHOOD, **entry(-2.5, verdict="believe importance")), "2.50 nats below importance sampling"),
        (change("noise", gain=entry(3.0, 0.1), factor=0.5, reason=None), "gain 3.00 nats"),
        (change("noise", gain=entry(0.3, 0.2), factor=0.5, reason=None), "gains nothing"),
        (change(*SHARPNESS, sample_means=0.15, samples=1.25), "what looks blurry is that means are shown"),
        (change(*SHARPNESS, sample_means=0.9, samples=11.5), "samples are noisier than the data"),
        (change(*SHARPNESS, sample_means=0.2, samples=0.3), "both blurrier than the data"),
        (change(*SHARPNESS, sample_means=0.9, samples=1.4), "about as sharp as the data"),
        (
            change("likelihood", "importance_optimized", effective_sample_size=2.0),
            "With 2.0 effective samples log p(x) is a lower bound",
        ),
        (change("latents", active_units=3), "Only 3 of 20 latent dimensions are in use"),
        (change("nearest", ratio=0.2), "memorizing"),
    ],
)
def test_what_stands_out_is_said(changed: Callable[[dict], None], said: str) -> None:
    result = measured()
    changed(result)
    assert said in spoken_of(result, config(likelihood="gaussian"))
