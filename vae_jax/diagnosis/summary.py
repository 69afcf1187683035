"""The diagnosis for people: a short table, sentences, and the config line to try first.

Their texts are `table.jinja` and `sentences.jinja`.
"""

import importlib.resources
from typing import Any

import jinja2

from vae_jax.config import Config
from vae_jax.numerics import estimate_text
from vae_jax.settings import read_part

# A change of the model that gains less than this is not worth it.
_WORTHWHILE_NATS = 0.5
_OF_MANY_SAMPLES = ("iwae", "dreg")


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
    rows = [line.partition(" | ") for line in _lines("table.jinja", result)]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, _, value in rows)


def sentences(result: dict[str, Any]) -> list[str]:
    """What the numbers mean, a sentence each."""
    return _lines("sentences.jinja", result)


def _lines(template: str, result: dict[str, Any]) -> list[str]:
    """The lines of a template of this package, which has the names in the result."""
    text = (importlib.resources.files("vae_jax.diagnosis") / template).read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = _number
    return [line for line in environment.from_string(text).render(result).splitlines() if line]


def _number(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "-"
    size = f", {entry['effective_sample_size']:.0f} effective samples" if "effective_sample_size" in entry else ""
    return f"{estimate_text(entry, 2)}{size}"
