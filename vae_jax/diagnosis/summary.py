"""The diagnosis for people: a short table, plain words, and the config line to try first."""

from typing import Any

from vae_jax.numerics import estimate_text

# Less than this is not worth a change of the model.
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


def advice(result: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The change that promises most, in nats, and the config line that makes it.

    What each could gain: a larger family of q, the approximation gap; a better encoder, the amortization gap; other
    noise, what refitting it gains; another prior, KL(q(z) || p(z)), of which the lower bound counts. The gaps of a
    model that was trained on a bound of many samples don't count: its q(z|x) was never meant to close them.

    Args:
        result: The measurements.
        config: The run's, section by section, so that what is in use already isn't proposed.
    """
    model, gain, aggregate = config["model"], result["noise"]["gain"], result["latents"]["aggregate"]
    candidates = []
    if config["objective"]["name"] not in _OF_MANY_SAMPLES:
        candidates.append((result["gaps"]["approximation"]["mean"], *_posterior_line(model)))
        candidates.append((result["gaps"]["amortization"]["mean"], *_encoder_line(model)))
    if gain is not None:
        candidates.append((gain["mean"], *_noise_line(config)))
    if aggregate is not None:
        candidates.append((aggregate["aggregate_kl"][0], *_prior_line(model)))
    nats, line, reason = max(candidates, default=(0.0, "", ""))
    if nats < _WORTHWHILE_NATS:
        line, reason = None, "no part that was measured costs half a nat; larger networks or longer training"
    return {"line": line, "nats": nats, "reason": reason}


def table(result: dict[str, Any]) -> str:
    """A short table, and what it says in plain words."""
    likelihood, gaps, latents, distances = (result[name] for name in ("likelihood", "gaps", "latents", "distances"))
    rows = [
        ("ELBO", _number(likelihood["elbo"])),
        ("log p(x), importance sampling from q(z|x)", _with_size(likelihood["importance_encoder"])),
        ("log p(x), from a q(z) fitted to each image", _with_size(likelihood["importance_optimized"])),
        (f"log p(x), annealed, on {result['annealed']['num_images']} of them", _number(result["annealed"])),
        ("  minus the better one above, on the same", _number(result["annealed"]["minus_importance"])),
        ("gap between ELBO and log p(x)", _number(gaps["total"])),
        ("  approximation gap (family of q)", _number(gaps["approximation"])),
        ("  amortization gap (encoder)", _number(gaps["amortization"])),
        ("  a flow instead of a diagonal q", _number(gaps["flow_over_diagonal"])),
        ("refitting the noise of p(x|z)", _number(result["noise"]["gain"])),
        ("active units", f"{latents['active_units']} of {latents['latents']}"),
        *_aggregate_rows(latents["aggregate"]),
        *_label_rows(latents["label_accuracy"]),
        *[
            (f"power at high frequencies, {name.replace('_', ' ')}", "-" if ratio is None else f"{ratio:.2f} of data's")
            for name, ratio in result["sharpness"]["high_frequency_ratio"].items()
        ],
        (f"Fréchet distance ({distances['features']})", _compared(distances, "samples", "training_images", ".4g")),
        (
            "nearest training image (median distance)",
            _compared(result["nearest"], "samples_to_training", "reconstructions_to_training", ".2f"),
        ),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, "", *words(result)])


def words(result: dict[str, Any]) -> list[str]:
    """What the numbers mean, a sentence each."""
    likelihood = result["likelihood"]
    gaps, noise, sharp = result["gaps"], result["noise"], result["sharpness"]["high_frequency_ratio"]
    total, approximation, amortization = (gaps[name]["mean"] for name in ("total", "approximation", "amortization"))
    sentences = [
        f"{total:.2f} nats lie between the bound and log p(x): {approximation:.2f} because the family of q(z|x) is too "
        f"small, {amortization:.2f} because the encoder doesn't find the best member of it.",
        *_few_samples_sentence(likelihood["log_likelihood"], likelihood),
        _annealing_sentence(result),
        _noise_sentence(noise),
    ]
    if all(sharp[name] is not None for name in sharp):
        sentences.append(
            f"At high frequencies means of p(x|z) have {sharp['sample_means']:.2f} of the data's power, samples "
            f"from it {sharp['samples']:.2f}: {_sharpness_words(sharp['sample_means'], sharp['samples'])}."
        )
    latents = result["latents"]
    if latents["active_units"] < _FEW_UNITS * latents["latents"]:
        sentences.append(
            f"Only {latents['active_units']} of {latents['latents']} latent dimensions are in use: fewer latents, or "
            "--config.objective.name=free_bits against a collapse."
        )
    ratio = result["nearest"]["ratio"]
    if ratio is not None and ratio < _MEMORIZED:
        sentences.append("Samples lie much closer to training images than reconstructions do: it may be memorizing.")
    first = result["advice"]
    if first["line"] is None:
        sentences.append(f"Nothing to try first: {first['reason']}.")
    else:
        sentences.append(f"Try first: {first['line']} ({first['reason']}; up to {first['nats']:.2f} nats).")
    return sentences


def _annealing_sentence(result: dict[str, Any]) -> str:
    annealed = result["annealed"]
    difference, simulated = annealed["minus_importance"], annealed["simulated"]
    believed = {
        "agree": "and agrees with importance sampling within its errors",
        "believe annealed": f"{difference['mean']:.2f} nats above importance sampling; both are too low in "
        "expectation, so believe the annealed estimate",
        "believe importance": f"{-difference['mean']:.2f} nats below importance sampling; both are too low in "
        "expectation, so believe importance sampling, or raise --temperatures",
    }[difference["verdict"]]
    return (
        f"Annealing gives {annealed['mean']:.2f} nats on {annealed['num_images']} images, {believed}; on images drawn "
        f"from the model log p(x) is between {simulated['below']:.2f} and {simulated['above']:.2f} (a width of "
        f"{_number(simulated['width'])})."
    )


def _few_samples_sentence(best: dict[str, Any], likelihood: dict[str, Any]) -> list[str]:
    size = likelihood[best["method"]]["effective_sample_size"]
    if size >= _TOO_FEW_EFFECTIVE_SAMPLES:
        return []
    return [
        f"With {size:.1f} effective samples log p(x) is a lower bound whose error is not known: raise --num_samples."
    ]


def _sharpness_words(means: float, samples: float) -> str:
    """What shares of the data's power at high frequencies mean."""
    if samples > _NOISY:
        return "samples are noisier than the data, the noise of p(x|z) is too wide or should depend on its neighbours"
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


def _posterior_line(model: dict[str, Any]) -> tuple[str, str]:
    if model.get("posterior") == "iaf":
        return f"--config.model.posterior_flows={2 * model['posterior_flows']}", "more flows in the family of q(z|x)"
    if model.get("posterior") == "hierarchical":
        return "--config.objective.name=iwae --config.objective.num_samples=5", "a bound that asks less of q(z|x)"
    return "--config.model.posterior=iaf", "a larger family of q(z|x)"


def _encoder_line(model: dict[str, Any]) -> tuple[str, str]:
    hidden = tuple(model.get("hidden", (400,))) or (400,)
    deeper = (*hidden[:1], *hidden)
    return f"--config.model.hidden='{deeper}'", "a stronger encoder (and decoder), or longer training"


def _noise_line(config: dict[str, Any]) -> tuple[str, str]:
    likelihood, train = config["model"].get("likelihood", ""), config["train"]
    if likelihood == "gaussian":
        return "--config.model.likelihood=gaussian_learned", "a learned width of the noise"
    # The width is learned already: it hasn't got there yet.
    length = "num_steps" if train.get("num_steps") else "num_epochs"
    return f"--config.train.{length}={2 * train[length]}", "longer training: the noise hasn't found its width"


def _prior_line(model: dict[str, Any]) -> tuple[str, str]:
    reason = "a prior closer to the aggregate posterior"
    if model.get("prior") == "vampprior":
        return f"--config.model.prior_components={2 * model['prior_components']}", reason
    if model.get("prior") == "hierarchical":
        return f"--config.model.upper_latents={2 * model['upper_latents']}", reason
    if model.get("conditional"):
        return "--config.model.prior=realnvp", reason
    return "--config.model.prior=vampprior", reason


def _aggregate_rows(aggregate: dict[str, Any] | None) -> list[tuple[str, str]]:
    names = {"mutual information I(x; z), bounds": "mutual_information", "KL(q(z) || p(z)), bounds": "aggregate_kl"}
    return (
        []
        if aggregate is None
        else [
            (title, "{:.2f} to {:.2f}, each ± {:.2f} (images)".format(*aggregate[name], aggregate["standard_error"]))
            for title, name in names.items()
        ]
    )


def _label_rows(accuracy: dict[str, float] | None) -> list[tuple[str, str]]:
    text = "{nearest_neighbours:.1%} (nearest neighbours), {logistic_regression:.1%} (logistic regression)"
    return [] if accuracy is None else [("labels predicted from the latents", text.format(**accuracy))]


def _number(entry: dict[str, Any] | None) -> str:
    return "-" if entry is None else estimate_text(entry, 2)


def _compared(found: dict[str, Any], samples: str, others: str, digits: str) -> str:
    name = others.removesuffix("_to_training").replace("_", " ")
    shown = "" if found[others] is None else f", {name} {found[others]:{digits}}"
    return f"samples {found[samples]:{digits}}{shown}"


def _with_size(entry: dict[str, Any]) -> str:
    return f"{_number(entry)}, {entry['effective_sample_size']:.0f} effective samples"
