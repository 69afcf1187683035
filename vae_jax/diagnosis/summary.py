"""The diagnosis for people: a short table, sentences, and the config line to try first."""

from typing import Any

from vae_jax.config import Config
from vae_jax.numerics import estimate_text
from vae_jax.settings import read_part

# A change of the model that gains less than this is not worth it.
_WORTHWHILE_NATS = 0.5
_NOTHING_NATS = 0.05
_STANDARD_ERRORS = 2.0
# Shares of the data's power at high frequencies.
_BLURRY = 0.5
_NOISY = 2.0
_FEW_UNITS = 0.25
_TOO_FEW_EFFECTIVE_SAMPLES = 5.0
_OF_MANY_SAMPLES = ("iwae", "dreg")
_MEMORIZED = 0.5

_VERDICTS = {
    "agree": "and agrees with importance sampling within its errors",
    "believe annealed": "{:.2f} nats above importance sampling; both are too low in expectation, so believe the "
    "annealed estimate",
    "believe importance": "{:.2f} nats below importance sampling; both are too low in expectation, so believe "
    "importance sampling, or raise --temperatures",
}


def advice(result: dict[str, Any], config: Config) -> dict[str, Any]:
    """The change that promises the largest gain, in nats, and the config line that makes it.

    What each could gain: a larger family of q, the approximation gap; a better encoder, the amortization gap; other
    noise, what refitting it gains; another prior, the lower bound of KL(q(z) || p(z)). The gaps of a model that was
    trained on a bound of many samples don't count, because such a q(z|x) isn't trained to close them.

    Args:
        result: The measurements.
        config: The run's, so that nothing is proposed that is in use already.
    """
    gaps, noise, aggregate = result["gaps"], result["noise"]["gain"], result["latents"]["aggregate"]
    counts = read_part("objective", config.objective).name not in _OF_MANY_SAMPLES
    gains = {
        "posterior": gaps["approximation"]["mean"] if counts else 0.0,
        "encoder": gaps["amortization"]["mean"] if counts else 0.0,
        "noise": noise["mean"] if noise is not None else 0.0,
        "prior": aggregate["aggregate_kl"][0] if aggregate is not None else 0.0,
    }
    part, nats = max(gains.items(), key=lambda gain: gain[1])
    if nats < _WORTHWHILE_NATS:
        reason = "no part that was measured costs half a nat; larger networks or longer training"
        return {"line": None, "nats": nats, "reason": reason}
    line, reason = _changes(config)[part]
    return {"line": f"--config.{line}", "nats": nats, "reason": reason}


def _changes(config: Config) -> dict[str, tuple[str, str]]:
    """What to change in each part, and why; more of what is in use already."""
    model, train = config.model, config.train
    length = "num_steps" if train.num_steps else "num_epochs"
    network, likelihood, posterior, prior = (
        read_part(f"model.{field}", getattr(model, field)) for field in ("network", "likelihood", "posterior", "prior")
    )

    closer_prior = f"model.prior={'realnvp' if model.conditional else 'vampprior'}"
    larger_q, of_q = "model.posterior=iaf", "a larger family of q(z|x)"
    if posterior.name == "iaf":
        flows = 2 * posterior.settings["flows"]
        larger_q, of_q = f"model.posterior.flows={flows}", "more flows in the family of q(z|x)"
    elif posterior.name == "hierarchical":
        larger_q, of_q = "objective='iwae(num_samples=5)'", "a bound that asks less of q(z|x)"
    if prior.name == "hierarchical":
        upper = 2 * prior.settings["upper"]
        closer_prior = f"model.prior.upper={upper} --config.model.posterior.upper={upper}"
    elif prior.name in ("vampprior", "mixture"):
        closer_prior = f"model.prior.components={2 * prior.settings['components']}"
    widths = "hidden" if "hidden" in network.settings else "channels"
    now = network.settings.get(widths) or (400,)
    noise = f"train.{length}={2 * getattr(train, length)}", "longer training: the noise hasn't found its width"
    # A width that is learned already hasn't been trained for long enough.
    if likelihood.name == "gaussian" and not likelihood.settings["learned"]:
        noise = "model.likelihood.learned=True", "a learned width of the noise"
    return {
        "posterior": (larger_q, of_q),
        "encoder": (
            f"model.network.{widths}='{(*now[:1], *now)}'",
            "a stronger encoder (and decoder), or longer training",
        ),
        "noise": noise,
        "prior": (closer_prior, "a prior closer to the aggregate posterior"),
    }


def table(result: dict[str, Any]) -> str:
    """The numbers, a line each."""
    likelihood, gaps, latents, annealed = (result[name] for name in ("likelihood", "gaps", "latents", "annealed"))
    aggregate, distances, nearest = latents["aggregate"], result["distances"], result["nearest"]
    rows = {
        "ELBO": _number(likelihood["elbo"]),
        "log p(x), importance sampling from q(z|x)": _number(likelihood["importance_encoder"]),
        "log p(x), from a q(z) fitted to each image": _number(likelihood["importance_optimized"]),
        f"log p(x), annealed, on {annealed['num_images']} of them": _number(annealed),
        "  minus the better one above, on the same": _number(annealed["minus_importance"]),
        "gap between ELBO and log p(x)": _number(gaps["total"]),
        "  approximation gap (family of q)": _number(gaps["approximation"]),
        "  amortization gap (encoder)": _number(gaps["amortization"]),
        "  a flow instead of a diagonal q": _number(gaps["flow_over_diagonal"]),
        "refitting the noise of p(x|z)": _number(result["noise"]["gain"]),
        "active units": f"{latents['active_units']} of {latents['latents']}",
    }
    if aggregate is not None:
        text = "{:.2f} to {:.2f}, each ± {standard_error:.2f} (images)"
        rows["mutual information I(x; z), bounds"] = text.format(*aggregate["mutual_information"], **aggregate)
        rows["KL(q(z) || p(z)), bounds"] = text.format(*aggregate["aggregate_kl"], **aggregate)
    if latents["label_accuracy"] is not None:
        text = "{nearest_neighbours:.1%} (nearest neighbours), {logistic_regression:.1%} (logistic regression)"
        rows["labels predicted from the latents"] = text.format(**latents["label_accuracy"])
    for name, ratio in result["sharpness"]["high_frequency_ratio"].items():
        power = "-" if ratio is None else f"{ratio:.2f} of data's"
        rows[f"power at high frequencies, {name.replace('_', ' ')}"] = power
    compared = _compared(distances, "samples", "training_images", ".4g")
    rows[f"Fréchet distance ({distances['features']})"] = compared
    compared = _compared(nearest, "samples_to_training", "reconstructions_to_training", ".2f")
    rows["nearest training image (median distance)"] = compared
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())


def sentences(result: dict[str, Any]) -> list[str]:
    """What the numbers mean, a sentence each."""
    likelihood, gaps, annealed, latents = (result[name] for name in ("likelihood", "gaps", "annealed", "latents"))
    difference, simulated, noise = annealed["minus_importance"], annealed["simulated"], result["noise"]
    size = likelihood[likelihood["log_likelihood"]["method"]]["effective_sample_size"]
    sharp, ratio, first = result["sharpness"]["high_frequency_ratio"], result["nearest"]["ratio"], result["advice"]
    said = [
        f"{gaps['total']['mean']:.2f} nats lie between the bound and log p(x): {gaps['approximation']['mean']:.2f} "
        f"because the family of q(z|x) is too small, {gaps['amortization']['mean']:.2f} because the encoder doesn't "
        "find the best member of it.",
        f"With {size:.1f} effective samples log p(x) is a lower bound with an unknown error: raise --num_samples."
        if size < _TOO_FEW_EFFECTIVE_SAMPLES
        else None,
        f"Annealing gives {annealed['mean']:.2f} nats on {annealed['num_images']} images, "
        f"{_VERDICTS[difference['verdict']].format(abs(difference['mean']))}; on images drawn from the model log p(x) "
        f"is between {simulated['below']:.2f} and {simulated['above']:.2f} (a width of "
        f"{_number(simulated['width'])}).",
        _noise_sentence(noise),
        f"At high frequencies means of p(x|z) have {sharp['sample_means']:.2f} of the data's power, samples "
        f"from it {sharp['samples']:.2f}: {_sharpness(sharp['sample_means'], sharp['samples'])}."
        if None not in sharp.values()
        else None,
        f"Only {latents['active_units']} of {latents['latents']} latent dimensions are in use: fewer latents, or "
        "--config.objective=free_bits against a collapse."
        if latents["active_units"] < _FEW_UNITS * latents["latents"]
        else None,
        "Samples lie much closer to training images than reconstructions do: it may be memorizing."
        if ratio is not None and ratio < _MEMORIZED
        else None,
        f"Nothing to try first: {first['reason']}."
        if first["line"] is None
        else f"Try first: {first['line']} ({first['reason']}; up to {first['nats']:.2f} nats).",
    ]
    return [sentence for sentence in said if sentence is not None]


def _sharpness(means: float, samples: float) -> str:
    """What shares of the data's power at high frequencies mean."""
    if samples > _NOISY:
        return "samples are noisier than the data; the noise of p(x|z) is too wide, or should be correlated"
    if means < _BLURRY and samples > 2.0 * means:
        return "what looks blurry is that means are shown"
    if samples < _BLURRY:
        return "means and samples are both blurrier than the data"
    return "means and samples are about as sharp as the data"


def _noise_sentence(noise: dict[str, Any]) -> str:
    if noise["gain"] is None:
        return f"Nothing to refit: {noise['reason']}."
    gain, error = noise["gain"]["mean"], noise["gain"]["standard_error_estimator"] or 0.0
    if gain <= max(_STANDARD_ERRORS * error, _NOTHING_NATS):
        return "The noise of p(x|z) has the width that fits best: refitting it gains nothing."
    return f"Refitting the noise of p(x|z) would gain {gain:.2f} nats (its width times {noise['factor']:.3g})."


def _number(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    size = f", {entry['effective_sample_size']:.0f} effective samples" if "effective_sample_size" in entry else ""
    return f"{estimate_text(entry, 2)}{size}"


def _compared(found: dict[str, Any], samples: str, others: str, digits: str) -> str:
    name = others.removesuffix("_to_training").replace("_", " ")
    shown = "" if found[others] is None else f", {name} {found[others]:{digits}}"
    return f"samples {found[samples]:{digits}}{shown}"
