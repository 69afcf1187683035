"""Latents that are maps: against vectors where the map is 1×1, against scipy where it is larger, and by the verbs."""

import functools
import json
import pathlib
import shutil
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.special
import scipy.stats
from losses import loss_of
from PIL import Image

from vae_jax.build import build_model
from vae_jax.cli import main
from vae_jax.config import ModelConfig
from vae_jax.errors import UserError
from vae_jax.evaluation import make_annealed_estimate, make_importance_estimate, make_pilot, sigmoid_temperatures
from vae_jax.models import VAE, Batch, init_variables, num_latents
from vae_jax.objectives import Iwae
from vae_jax.trained import open_run

SHAPE = (8, 8, 1)
KEY = jax.random.key(3)


def model_of(channels: str, spatial: bool, context_size: int = 0, **fields: Any) -> VAE:
    network = f"conv(channels={channels}, spatial={spatial})"
    config = ModelConfig(network=network, latents=2, conditional=context_size > 0, **fields)
    return build_model(config, SHAPE, context_size=context_size)


def images(count: int = 3) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 2, (count, *SHAPE)), jnp.float32)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def variables_of(model: VAE) -> Any:
    """Drawn in NumPy, which compiles nothing; no bias is zero."""
    fresh = jax.eval_shape(lambda: init_variables(model, KEY, SHAPE))
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), fresh)


def one_place(context_size: int = 0) -> tuple[VAE, VAE, Any]:
    """Three halvings of 8×8: a vector, a map of one place, and variables that are those of both."""
    flat, spatial = (model_of("(4, 8, 8)", spatial, context_size) for spatial in (False, True))
    variables = variables_of(flat)
    shapes = [jax.eval_shape(lambda model=model: init_variables(model, KEY, SHAPE)) for model in (flat, spatial)]
    assert shapes[0] == shapes[1]
    assert (flat.latents.shape, spatial.latents.shape) == ((2,), (1, 1, 2))
    return flat, spatial, variables


def assert_close(ours: Any, theirs: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-5)


def test_a_map_of_one_place_has_the_terms_of_a_vector() -> None:
    *models, variables = one_place(context_size=3)
    batch = Batch(images(), context=jnp.asarray([0, 2, 1]))

    @functools.partial(jax.jit, static_argnums=0)
    def terms(model: VAE, variables: Any) -> Any:
        joint = model.joint(variables, batch, noise=normal(4, 3, 2))
        given = model.joint(variables, batch, z=joint.z + 0.5)
        return joint.z.reshape(4, 3, 2), *(joint[1:5]), *(given[1:5])

    flat, spatial = (terms(model, variables) for model in models)
    assert_close(spatial, flat)
    assert all(np.ptp(np.asarray(term)) > 0.01 for term in flat)


def test_a_map_of_one_place_has_the_importance_weighted_gradient_of_a_vector() -> None:
    *models, variables = one_place()

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(model: VAE, params: Any) -> Any:
        return jax.value_and_grad(lambda params: loss_of(Iwae(4), model, params, images(), KEY, 0)[0])(params)

    flat, spatial = (gradient(model, variables["params"]) for model in models)
    assert_close(spatial, flat)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(flat[1]))


def test_a_map_of_one_place_has_the_importance_sampled_likelihood_of_a_vector() -> None:
    *models, variables = one_place()
    found = [make_importance_estimate(model, 20, 8)(variables, Batch(images()), jnp.arange(3), KEY) for model in models]
    assert_close(found[1], found[0])


@pytest.mark.long
@pytest.mark.parametrize("start", [pytest.param("prior", marks=pytest.mark.manual), "posterior"])
def test_a_map_of_one_place_has_the_annealed_likelihood_of_a_vector(start: str) -> None:
    *models, variables = one_place()
    batch, found = (Batch(images()), jnp.arange(3)), []
    for model in models:
        schedule = make_pilot(model, 3, 3, start)(variables, *batch, KEY, sigmoid_temperatures(12))
        found.append(make_annealed_estimate(model, 3, 3, start)(variables, *batch, KEY, schedule).log_likelihood)
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)


def larger(**fields: Any) -> tuple[VAE, Any]:
    """A map of 4×4 places."""
    model = model_of("(4,)", True, **fields)
    return model, variables_of(model)


def test_kl_and_densities_are_sums_over_all_places() -> None:
    model, variables = larger()
    noise = normal(5, 3, 32)

    @jax.jit
    def terms(variables: Any) -> Any:
        q = model.encode(variables, Batch(images()))
        joint = model.joint(variables, Batch(images()), q, noise=noise)
        return q, joint[:5], model.log_posterior(variables, q, joint.z, each=True)

    (mean, logvar), (z, log_likelihood, log_prior, log_posterior, kl), each = jax.device_get(terms(variables))
    assert mean.shape == logvar.shape == (3, 4, 4, 2)
    assert z.shape == (5, 3, 4, 4, 2) and log_likelihood.shape == (5, 3) and kl.shape == (3, 32)
    stddev = np.exp(0.5 * logvar.astype(np.float64))
    np.testing.assert_allclose(z, mean + stddev * np.reshape(noise, z.shape), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_prior, scipy.stats.norm.logpdf(z).sum((2, 3, 4)), rtol=1e-5)
    of_each = scipy.stats.norm.logpdf(z, mean, stddev)
    np.testing.assert_allclose(log_posterior, of_each.sum((2, 3, 4)), rtol=1e-5)
    np.testing.assert_allclose(each, of_each.reshape(5, 3, 32), rtol=1e-4, atol=1e-4)
    by_hand = np.log(1 / stddev) + (stddev**2 + mean**2 - 1) / 2
    np.testing.assert_allclose(kl.sum(-1), by_hand.sum((1, 2, 3)), rtol=1e-4)
    # Places differ, so that a sum over some of them would be noticed.
    assert by_hand.std((1, 2)).min() > 1e-3


def test_the_vampprior_of_maps_is_the_mixture_of_the_posteriors_of_its_images() -> None:
    model, variables = larger(prior="vampprior(components=3)")
    z = normal(5, 2, 4, 4, 2)

    @jax.jit
    def found(variables: Any) -> Any:
        pseudo = jax.nn.sigmoid(variables["params"]["prior"]["logits"])
        sample = model.sample_prior(variables, KEY, 6)
        return model.encode(variables, Batch(pseudo)), model.log_prior(variables, z), sample

    (mean, logvar), log_prior, sample = jax.device_get(found(variables))
    each = scipy.stats.norm.logpdf(z[:, :, None], mean, np.exp(0.5 * logvar)).sum((-1, -2, -3))
    np.testing.assert_allclose(log_prior, scipy.special.logsumexp(each, axis=-1) - np.log(3), rtol=1e-5)
    assert sample.shape == (6, 4, 4, 2)


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [
        ("diagonal_gaussian", "standard_normal"),
        ("diagonal_gaussian", "vampprior(components=3)"),
        ("point_mass", "standard_normal"),
    ],
)
def test_what_takes_maps_has_their_shape_everywhere(posterior: str, prior: str) -> None:
    model, variables = larger(posterior=posterior, prior=prior)
    assert (model.latents.shape, model.num_decoded, num_latents(model)) == ((4, 4, 2), 32, 32)

    def shapes(variables: Any) -> Any:
        q = model.encode(variables, Batch(images()))
        joint = model.joint(variables, Batch(images()), q, noise=jnp.zeros((5, 3, model.noise_size)))
        samples = model.sample_prior(variables, KEY, 6)
        return joint.z, joint.log_prior, model.point(variables, q), samples, model.decode(variables, samples).mean()

    found = [leaf.shape for leaf in jax.eval_shape(shapes, variables)]
    assert found == [(5, 3, 4, 4, 2), (5, 3), (3, 4, 4, 2), (6, 4, 4, 2), (6, *SHAPE)]


@pytest.mark.parametrize("prior", ["mixture", "realnvp"])
def test_priors_of_vectors_are_refused(prior: str) -> None:
    with pytest.raises(UserError, match=f"model.prior '{prior}' is one of vectors, but .* a map of 4×4×2 "):
        model_of("(4,)", True, prior=prior)


@pytest.mark.parametrize("posterior", ["full_gaussian", "iaf", "planar", "hierarchical"])
def test_posteriors_of_vectors_are_refused(posterior: str) -> None:
    with pytest.raises(UserError, match=f"model.posterior '{posterior}' is one of vectors, but .* a map of 4×4×2 "):
        model_of("(4,)", True, posterior=posterior)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run of 4 steps on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "maps"
    arguments = ["--config.model.network=conv(channels=(4,),spatial=True)", "--config.model.latents=2"]
    steps = ["--config.train.num_steps=4", "--config.train.report=False", "--config.train.log_every=2"]
    main([f"--workdir={folder}", *arguments, *steps])
    return folder


def finite(value: Any) -> bool:
    """Whether all numbers in what was read from JSON are finite."""
    if isinstance(value, dict | list):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or bool(np.isfinite(value))


def many_greys(path: pathlib.Path) -> bool:
    """Whether a picture opens, and shows more than its gaps."""
    with Image.open(path) as image:
        return len(np.unique(image)) > 10


@pytest.mark.long
def test_training_and_evaluation_of_maps_give_finite_numbers(run: pathlib.Path) -> None:
    main(["evaluate", f"--workdir={run}", "--num_samples=5", "--num_images=20"])
    result = json.loads((run / "evaluation.json").read_text())
    assert finite(result) and result["elbo"]["mean"] <= result["log_likelihood"]["mean"] < 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert finite(rows) and [row["step"] for row in rows if row["split"] == "train"] == [2, 4]


@pytest.mark.long
def test_maps_are_sampled_reconstructed_and_interpolated(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for verb, more in {"sample": "--num_images=9", "reconstruct": "--num_images=4", "interpolate": "--steps=3"}.items():
        main([verb, f"--workdir={run}", f"--output={tmp_path / verb}.png", more])
        assert many_greys(tmp_path / f"{verb}.png")


@pytest.mark.long
def test_encoded_maps_decode_to_the_reconstructions(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    main(["encode", f"--workdir={run}", f"--output={tmp_path / 'latents.npz'}", "--num_images=20"])
    with np.load(tmp_path / "latents.npz") as file:
        mean, logvar = file["mean"], file["logvar"]
    assert mean.shape == logvar.shape == (20, 32) and np.all(np.isfinite(mean)) and np.all(np.isfinite(logvar))
    main(["decode", f"--workdir={run}", f"--latents={tmp_path / 'latents.npz'}", f"--output={tmp_path / 'back.npz'}"])
    with np.load(tmp_path / "back.npz") as file:
        back = file["images"]
    trained = open_run(str(run))
    expected = trained.model.decode(trained.variables, jnp.asarray(mean).reshape(20, 4, 4, 2)).mean()
    assert back.shape == (20, *SHAPE) and len(np.unique(back)) > 10
    np.testing.assert_allclose(back / 255, expected, atol=0.503 / 255)


@pytest.mark.long
def test_maps_are_exported_and_reported(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    main(["export", f"--workdir={run}", f"--output={tmp_path / 'exported'}"])
    trained, files = open_run(str(run)), tmp_path / "exported"
    params = safetensors.numpy.load_file(files / "model.safetensors")
    encoder, decoder = (
        jax.export.deserialize((files / f"{name}.jaxexport").read_bytes()) for name in ("encoder", "decoder")
    )
    mean = encoder.call(params, images())["mean"]
    q: Any = trained.model.encode(trained.variables, Batch(images()))
    assert_close(mean, q.mean.reshape(3, 32))
    assert_close(decoder.call(params, mean), trained.model.decode(trained.variables, q.mean).mean())
    main(["report", f"--workdir={run}", f"--output={tmp_path / 'report.html'}"])
    assert "</html>" in (tmp_path / "report.html").read_text()


@pytest.mark.manual
def test_a_model_of_maps_is_diagnosed(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = pathlib.Path(shutil.copytree(run, tmp_path / "run"))
    few = ["--num_images=4", "--num_samples=10", "--optimization_steps=5", "--annealed_images=3", "--annealed_chains=2"]
    few += ["--temperatures=4", "--leapfrog_steps=2", "--latent_images=40", "--generated_images=20"]
    main(["diagnose", f"--workdir={copy}", *few])
    found = json.loads((copy / "diagnosis.json").read_text())
    assert finite(found) and found["latents"]["latents"] == 32
