"""Advice and sentences from measurements written out by hand."""

import copy
import itertools
import shlex

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


def spoken_of(result: dict) -> str:
    return "\n".join([table(result), *sentences(result)])


def entry(mean: float, error: float | None = 0.01, **more) -> dict:
    errors = {"standard_error_images": 0.1, "standard_error_estimator": error, "num_images": 200}
    return {"mean": mean, **errors, **more}


def measured() -> dict:
    return {
        "likelihood": {
            "elbo": entry(-99.0),
            "importance_encoder": entry(-94.0, effective_sample_size=8.0),
            "importance_optimized": entry(-92.5, effective_sample_size=140.0),
            "log_likelihood": entry(-92.5, method="importance_optimized"),
        },
        "gaps": {
            "total": entry(6.5),
            "approximation": entry(2.0),
            "amortization": entry(4.5),
            "flow_over_diagonal": entry(1.5),
        },
        "annealed": entry(
            -92.4,
            num_images=50,
            minus_importance=entry(0.01, verdict="agree"),
            simulated={"below": -107.9, "above": -107.8, "width": entry(0.1, None)},
        ),
        "noise": {"gain": None, "reason": "Bernoulli has no noise whose width could be refitted"},
        "latents": {
            "active_units": 20,
            "latents": 20,
            "aggregate": {"mutual_information": [8.5, 24.0], "aggregate_kl": [2.5, 18.0], "standard_error": 0.1},
            "label_accuracy": {"nearest_neighbours": 0.94, "logistic_regression": 0.87},
        },
        "sharpness": {
            "high_frequency_ratio": {
                "samples": 1.25,
                "sample_means": 0.15,
                "reconstructions": 1.1,
                "reconstruction_means": 0.2,
            }
        },
        "distances": {"features": "random_convolutions", "samples": 0.18, "training_images": 0.0075},
        "nearest": {"samples_to_training": 6.0, "reconstructions_to_training": 5.5, "ratio": 1.09},
    }


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("gaps", "approximation", "mean"), "--config.model.posterior=iaf"),
        (("gaps", "amortization", "mean"), "--config.model.network.hidden='(400, 400)'"),
        (("latents", "aggregate", "aggregate_kl"), "--config.model.prior=vampprior"),
    ],
)
def test_the_part_that_costs_most_is_tried_first(path: tuple[str, ...], line: str) -> None:
    result = measured()
    inner = result
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = [9.0, 18.0] if path[-1] == "aggregate_kl" else 9.0
    found = advice(result, config())
    assert (found["line"], found["nats"]) == (line, 9.0)


def test_noise_that_costs_most_is_refitted_first() -> None:
    result = measured()
    result["noise"] = {"gain": entry(600.0), "factor": 0.3, "reason": None}
    assert advice(result, config(likelihood="gaussian"))["line"] == "--config.model.likelihood.learned=True"


def test_gaps_of_a_bound_of_many_samples_are_no_reason_to_change() -> None:
    assert advice(measured(), config("iwae"))["line"] == "--config.model.prior=vampprior"
    flow = measured()
    flow["latents"]["aggregate"] = None
    assert advice(flow, config("dreg"))["line"] is None


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        (posterior, prior)
        for posterior, prior in itertools.product(POSTERIORS, PRIORS)
        if posterior != "point_mass" and (posterior == "hierarchical") == (prior == "hierarchical")
    ],
)
def test_what_is_proposed_is_not_in_use_and_can_be_typed(posterior: str, prior: str) -> None:
    for gaps in ((9.0, 1.0), (1.0, 9.0), (1.0, 1.0)):
        result = measured()
        result["gaps"]["approximation"]["mean"], result["gaps"]["amortization"]["mean"] = gaps
        line = advice(result, config(posterior=posterior, prior=prior))["line"]
        parts = [f"--config.model.posterior={posterior}", f"--config.model.prior={prior}"]
        more = [*parts, *shlex.split(line)]
        before, after = (resolve_parts(read_config(parse(train, flags))) for flags in (parts, more))
        assert before != after


def test_summary_name_every_number() -> None:
    result = measured()
    result["advice"] = advice(result, config())
    spoken = spoken_of(result)
    for part in (
        "6.50 nats lie between the bound and log p(x): 2.00 because the family",
        "4.50 because the encoder",
        "agrees with importance sampling",
        "between -107.90 and -107.80",
        "Nothing to refit: Bernoulli",
        "0.15 of the data's power, samples from it 1.25",
        "Try first: --config.model.network.hidden='(400, 400)'",
        "up to 4.50 nats",
    ):
        assert part in spoken
    assert "memorizing" not in spoken and "in use" not in spoken


@pytest.mark.parametrize(
    ("verdict", "mean", "said"),
    [
        ("believe annealed", 1.5, "1.50 nats above importance sampling"),
        ("believe importance", -2.5, "2.50 nats below importance sampling"),
    ],
)
def test_disagreement_says_which_to_believe(verdict: str, mean: float, said: str) -> None:
    result = copy.deepcopy(measured())
    result["annealed"]["minus_importance"] = entry(mean, verdict=verdict)
    result["advice"] = advice(result, config())
    assert said in spoken_of(result)


@pytest.mark.parametrize(("gain", "error", "said"), [(3.0, 0.1, "gain 3.00 nats"), (0.3, 0.2, "gains nothing")])
def test_refitting_gains_what_is_beyond_its_error(gain: float, error: float, said: str) -> None:
    result = measured()
    result["noise"] = {"gain": entry(gain, error), "factor": 0.5, "reason": None}
    result["advice"] = advice(result, config(likelihood="gaussian"))
    assert said in spoken_of(result)


@pytest.mark.parametrize(
    ("means", "samples", "said"),
    [
        (0.15, 1.25, "what looks blurry is that means are shown"),
        (0.9, 11.5, "samples are noisier than the data"),
        (0.2, 0.3, "both blurrier than the data"),
        (0.9, 1.4, "about as sharp as the data"),
    ],
)
def test_sharpness_is_said(means: float, samples: float, said: str) -> None:
    result = measured()
    result["sharpness"]["high_frequency_ratio"].update(sample_means=means, samples=samples)
    result["advice"] = advice(result, config())
    assert said in spoken_of(result)


def test_too_few_effective_samples_are_said() -> None:
    result = measured()
    result["advice"] = advice(result, config())
    assert "effective samples log p(x) is a lower bound" not in spoken_of(result)
    result["likelihood"]["importance_optimized"]["effective_sample_size"] = 2.0
    assert "With 2.0 effective samples log p(x) is a lower bound" in spoken_of(result)


def test_training_images_are_not_compared_with_themselves() -> None:
    result = measured()
    result["distances"]["training_images"] = None
    result["nearest"].update(reconstructions_to_training=None, ratio=None)
    result["latents"]["label_accuracy"] = None
    result["advice"] = advice(result, config())
    assert "training images 0" not in spoken_of(result) and "memorizing" not in spoken_of(result)


def test_collapse_and_memorizing_are_said() -> None:
    result = measured()
    result["latents"]["active_units"], result["nearest"]["ratio"] = 3, 0.2
    result["advice"] = advice(result, config())
    spoken = spoken_of(result)
    assert "Only 3 of 20 latent dimensions are in use" in spoken and "memorizing" in spoken
