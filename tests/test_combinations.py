"""Parts combine freely: every two that can meet do, in some model that trains; what can't is refused, with a reason.

The combinations are a covering array of strength two: each pair of members (a network and a likelihood, a prior
and an objective, ...) that any model can have is in at least one combination. By `pytest -m long` those with three
of four pairs are trained, by `pytest -m manual` the others and the full product of the five choices.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
import pytest
import sklearn.datasets
from jax.extend.core import jaxpr_as_fun
from small_parts import small

from vae_jax import build
from vae_jax.build.model import LIKELIHOODS, NETWORKS, POSTERIORS, PRIORS
from vae_jax.build.objective import OBJECTIVES
from vae_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from vae_jax.data import Dataset
from vae_jax.errors import UserError
from vae_jax.models import VAE, Variables, init_variables
from vae_jax.training import TrainState, create_state, make_train_step, with_players

BATCH = 4
NUM_STEPS = 3
Combination = tuple[str, ...]
# Where an objective has variants that take another path, they are members too.
OBJECTIVE_TEXTS = {
    "elbo": "elbo(num_samples=2)",
    "score_function": "elbo(gradient=score_function, analytic_kl=False)",
    "beta": "beta(beta=4, annealing=cyclical, steps=2)",
    "free_bits": "free_bits",
    "capacity": "capacity(steps=2)",
    "iwae": "iwae(num_samples=3)",
    "dreg": "dreg(num_samples=3)",
    "mmd": "mmd",
    "beta_tcvae": "beta_tcvae(beta=4)",
    "factor_vae": "factor_vae(hidden=(4,))",
    "wake_sleep": "wake_sleep",
    "autoencoder": "autoencoder",
}
LEARNED = "gaussian(learned=True)"
FACTORS: Mapping[str, tuple[str, ...]] = {
    "network": ("mlp", "conv", "resnet"),
    "likelihood": (
        "bernoulli",
        "continuous_bernoulli",
        "gaussian",
        LEARNED,
        "gaussian_per_pixel",
        "discretized_logistic",
        "discretized_logistic_mixture",
        "poisson",
    ),
    "posterior": ("diagonal_gaussian", "full_gaussian", "planar", "iaf", "hierarchical", "point_mass"),
    "prior": ("standard_normal", "mixture", "vampprior", "realnvp", "hierarchical", "conditional_gaussian"),
    "objective": tuple(OBJECTIVE_TEXTS),
    "labels": ("unconditional", "conditional"),
    "images": ("digits", "colours"),
}
NAMES = tuple(FACTORS)

WITH_DENSITY_ANYWHERE = ("diagonal_gaussian", "full_gaussian", "hierarchical")


def reason_against(combination: Combination) -> str | None:
    """Words of the reason for which a combination must be refused, written out from the mathematics."""
    parts = dict(zip(NAMES, combination, strict=True))
    posterior, prior, objective = parts["posterior"], parts["prior"], parts["objective"]
    if (posterior == "hierarchical") != (prior == "hierarchical"):
        return "a hierarchical prior goes with the hierarchical posterior"
    if prior == "vampprior" and posterior not in WITH_DENSITY_ANYWHERE:
        return "the prior is a mixture of posteriors, whose density it needs at any z"
    if prior == "vampprior" and parts["labels"] == "conditional":
        return "the images that the prior learns have none"
    if prior == "conditional_gaussian" and parts["labels"] == "unconditional":
        return "depends on a context, and this model has none"
    if objective == "autoencoder":
        return None if posterior == "point_mass" else "a z that is a function of x alone"
    if posterior == "point_mass" and objective != "mmd":
        return "a density of q(z|x), which a point mass hasn't"
    if objective in ("score_function", "dreg", "wake_sleep") and posterior not in WITH_DENSITY_ANYWHERE:
        return "the density of q(z|x) at any z"
    if objective == "beta_tcvae" and posterior != "diagonal_gaussian":
        return "a q(z|x) that is a product over latent dimensions"
    return None


@functools.cache
def every_sensible_combination() -> tuple[Combination, ...]:
    return tuple(each for each in itertools.product(*FACTORS.values()) if reason_against(each) is None)


def pairs(combination: Combination) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    return itertools.combinations(zip(NAMES, combination, strict=True), 2)


@functools.cache
def covering_combinations() -> tuple[Combination, ...]:
    """Few combinations in which all pairs that occur in any are met: always the one with the most new pairs.

    The same list in every process, as pytest-xdist needs it: ties go to the first.
    """
    candidates = every_sensible_combination()
    numbers: dict = {}
    of_candidate = np.array([[numbers.setdefault(pair, len(numbers)) for pair in pairs(each)] for each in candidates])
    missing, chosen = np.ones(len(numbers), bool), []
    while missing.any():
        best = int(np.argmax(missing[of_candidate].sum(axis=1)))
        missing[of_candidate[best]] = False
        chosen.append(candidates[best])
    return tuple(chosen)


@functools.cache
def data(images: str, binarization: str, counts: bool) -> Dataset:
    """Twelve labelled images: digits of 17 grey levels, or noise in three colours whose sides no stage halves."""
    if images == "digits":
        pixels, max_value = sklearn.datasets.load_digits().images[:12, ..., np.newaxis].astype(np.uint8), 16
    else:
        pixels, max_value = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3)).astype(np.uint8), 255
    if counts:
        pixels, max_value = (pixels // ((max_value + 1) // 4)).astype(np.int32), 1
    labels = np.arange(12, dtype=np.int32) % 3
    about = {"values": "counts" if counts else "levels", "binarization": binarization}
    return Dataset(images, pixels, pixels[:2], labels, labels[:2], max_value, images, **about)


def config_and_data(combination: Combination) -> tuple[Config, Dataset]:
    parts = dict(zip(NAMES, combination, strict=True))
    binarization = "dynamic" if parts["likelihood"] == "bernoulli" else "none"
    model = ModelConfig(
        **{field: small(parts[field]) for field in ("network", "likelihood", "posterior", "prior")},
        conditional=parts["labels"] == "conditional",
        latents=2,
    )
    objective = OBJECTIVE_TEXTS[parts["objective"]]
    # Plain steps of a bounded length compile faster than Adam's, and one bad gradient spoils all parameters.
    train = TrainConfig(batch_size=BATCH, optimizer="sgd", learning_rate=0.01, clip_norm=1.0)
    config = Config(data=DataConfig(binarization=binarization), model=model, objective=objective, train=train)
    return config, data(parts["images"], binarization, parts["likelihood"] == "poisson")


def train(combination: Combination, compiled: bool = True):
    """Parameters before and after three steps, and the metrics of each.

    A whole program for each model takes long to compile. For all models it is quicker to trace a step once and to
    run its operations one after the other: most of them have been met, and compiled, before.
    """
    config, source = config_and_data(combination)
    build.check_fit(config, source)
    model = build.build_model_for(config, source)
    tx = build.build_optimizer(config, model, NUM_STEPS)
    loss = build.build_loss(config, model, len(source.training.images))
    train_step = make_train_step(loss, tx, build.build_preparation(source))
    batches = source.training.images.reshape(NUM_STEPS, BATCH, *source.image_shape)
    labels = source.training.labels.reshape(NUM_STEPS, BATCH) if config.model.conditional else None
    key = jax.random.key(0)

    def start(init: Callable[..., Variables]) -> TrainState:
        variables = with_players(init(model, source.image_shape), build.build_players(config, model), key)
        return create_state(variables, tx, with_average=False)

    def run(batches: np.ndarray, labels: np.ndarray | None):
        before = start(fresh_params)
        after, metrics = jax.lax.scan(
            lambda state, batch: train_step(state, batch[0], key, batch[1]), before, (batches, labels)
        )
        return before.params, after.params, metrics

    if compiled:
        # Nothing here runs long enough to be worth optimizing: three quarters of the time would be the compiler's.
        quick = {
            "xla_backend_optimization_level": 0,
            "xla_llvm_disable_expensive_passes": True,
            "xla_cpu_use_fusion_emitters": False,
        }
        return jax.device_get(jax.jit(run, compiler_options=quick)(batches, labels))
    with jax.disable_jit():
        before = start(remembered_params)
    traced, shapes = jax.make_jaxpr(train_step, return_shape=True)(before, *_batch(batches, labels, key, 0))
    (call,) = traced.eqns
    operations = jaxpr_as_fun(call.params["jaxpr"])
    state, rows = before, []
    for step in range(NUM_STEPS):
        outputs = operations(*jax.tree.leaves((state, *_batch(batches, labels, key, step))))
        state, metrics = jax.tree.unflatten(jax.tree.structure(shapes), outputs)
        rows.append(metrics)
    return jax.device_get((before.params, state.params, jax.tree.map(lambda *steps: np.stack(steps), *rows)))


def fresh_params(model: VAE, image_shape: tuple[int, int, int]) -> Variables:
    return init_variables(model, jax.random.key(0), image_shape)


# Objectives share their models.
remembered_params = functools.lru_cache(maxsize=64)(fresh_params)


def _batch(batches: np.ndarray, labels: np.ndarray | None, key: jax.Array, step: int):
    return batches[step], key, None if labels is None else labels[step]


def assert_trains(combination: Combination, compiled: bool = True) -> None:
    before, after, metrics = train(combination, compiled)
    for path, leaf in jax.tree_util.tree_leaves_with_path((after, metrics)):
        assert np.all(np.isfinite(leaf)), f"{combination}: {jax.tree_util.keystr(path)} is {leaf}"
    for part in ("encoder", "posterior", "decoder"):
        leaves = zip(jax.tree.leaves(before[part]), jax.tree.leaves(after[part]), strict=True)
        assert any(np.any(old != new) for old, new in leaves), f"{combination}: {part} learned nothing"
    if "point_mass" in combination:
        assert metrics["elbo"] is None and metrics["kl"] is None
    else:
        expected = metrics["reconstruction"] - metrics["kl"]
        np.testing.assert_allclose(metrics["elbo"], expected, rtol=1e-4, atol=1e-3)


def test_no_member_is_missing() -> None:
    tables = {"network": NETWORKS, "likelihood": LIKELIHOODS, "posterior": POSTERIORS, "prior": PRIORS}
    assert {name: set(table) for name, table in tables.items()} == {
        name: {text.partition("(")[0] for text in FACTORS[name]} for name in tables
    }
    assert {text.partition("(")[0] for text in OBJECTIVE_TEXTS.values()} == set(OBJECTIVES)


def test_every_two_members_that_can_meet_do() -> None:
    met = {pair for combination in covering_combinations() for pair in pairs(combination)}
    assert met == {pair for combination in every_sensible_combination() for pair in pairs(combination)}
    assert len(covering_combinations()) < 120


@pytest.mark.parametrize(
    "posterior",
    [name if name == "iaf" else pytest.param(name, marks=pytest.mark.long) for name in FACTORS["posterior"]],
)
def test_what_makes_no_sense_is_refused_with_the_reason(posterior: str) -> None:
    for prior, objective in itertools.product(FACTORS["prior"], FACTORS["objective"]):
        # What labels matter to is the prior alone.
        labels = FACTORS["labels"] if objective == "elbo" else FACTORS["labels"][prior == "conditional_gaussian" :][:1]
        for combination in (("mlp", "gaussian", posterior, prior, objective, each, "digits") for each in labels):
            reason = reason_against(combination)
            if reason is None:
                build.check_fit(*config_and_data(combination))
            else:
                with pytest.raises(UserError) as refusal:
                    build.check_fit(*config_and_data(combination))
                assert reason in str(refusal.value), combination


# The first of them have three of four pairs.
AT_EVERY_CHANGE = 35


@pytest.mark.long
@pytest.mark.parametrize(
    "combination",
    [
        pytest.param(each, marks=[] if index < AT_EVERY_CHANGE else [pytest.mark.manual])
        for index, each in enumerate(covering_combinations())
    ],
    ids=["-".join(each) for each in covering_combinations()],
)
def test_combination_trains(combination: Combination) -> None:
    assert_trains(combination)


def full_product() -> list[Combination]:
    """Every network × likelihood × posterior × prior × objective; labels and images take turns."""
    by_choices = itertools.groupby(every_sensible_combination(), lambda each: each[:5])
    return [variants[index % len(variants)] for index, variants in enumerate(list(each) for _, each in by_choices)]


@pytest.mark.manual
@pytest.mark.parametrize("likelihood", FACTORS["likelihood"])
@pytest.mark.parametrize("network", FACTORS["network"])
def test_full_product_trains(network: str, likelihood: str) -> None:
    """4,296 models in all."""
    chosen = [each for each in full_product() if each[:2] == (network, likelihood)]
    assert len(chosen) == 4296 // 24
    for combination in chosen:
        assert_trains(combination, compiled=False)
    # What was compiled for one pair of members takes gigabytes.
    jax.clear_caches()
