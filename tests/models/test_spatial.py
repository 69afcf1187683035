"""Latents that are maps: against vectors where the map is 1×1, against scipy where it is larger, and by the verbs."""

import functools
import json
import pathlib
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
from trees import assert_close

from vae_jax.build import build_model
from vae_jax.cli import main
from vae_jax.config import ModelConfig
from vae_jax.errors import UserError
from vae_jax.models import VAE, Batch, init_variables
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


def test_a_map_of_one_place_has_the_terms_of_a_vector() -> None:
    *models, variables = one_place(context_size=3)
    batch = Batch(images(), context=jnp.asarray([0, 2, 1]))

    @functools.partial(jax.jit, static_argnums=0)
    def terms(model: VAE, variables: Any) -> Any:
        joint = model.joint(variables, batch, noise=normal(4, 3, 2))
        given = model.joint(variables, batch, z=joint.z + 0.5)
        return joint.z.reshape(4, 3, 2), *(joint[1:5]), *(given[1:5])

    flat, spatial = (terms(model, variables) for model in models)
    assert_close(spatial, flat, 1e-5)
    assert all(np.ptp(np.asarray(term)) > 0.01 for term in flat)


@pytest.mark.long
def test_a_map_of_one_place_has_the_importance_weighted_gradient_of_a_vector() -> None:
    *models, variables = one_place()

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(model: VAE, params: Any) -> Any:
        return jax.value_and_grad(lambda params: loss_of(Iwae(4), model, params, images(), KEY, 0)[0])(params)

    flat, spatial = (gradient(model, variables["params"]) for model in models)
    assert_close(spatial, flat, 1e-5)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(flat[1]))


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


VECTORS = [("prior", name) for name in ("mixture", "realnvp")]
VECTORS += [("posterior", name) for name in ("full_gaussian", "iaf", "planar", "hierarchical")]


@pytest.mark.parametrize(("field", "name"), VECTORS)
def test_parts_of_vectors_are_refused(field: str, name: str) -> None:
    with pytest.raises(UserError, match=f"model.{field} '{name}' is one of vectors, but .* a map of 4×4×2 "):
        model_of("(4,)", True, **{field: name})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run of 4 steps on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "maps"
    arguments = ["--config.model.network=conv(channels=(4,),spatial=True)", "--config.model.latents=2"]
    steps = ["--config.train.num_steps=4", "--config.train.report=False", "--config.train.log_every=2"]
    main([f"--workdir={folder}", *arguments, *steps])
    return folder


@pytest.mark.long
def test_maps_are_evaluated_sampled_reconstructed_and_interpolated(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    main(["evaluate", f"--workdir={run}", "--num_samples=5", "--num_images=20"])
    result = json.loads((run / "evaluation.json").read_text())
    assert result["elbo"]["mean"] <= result["log_likelihood"]["mean"] < 0
    for verb, more in {"sample": "--num_images=9", "reconstruct": "--num_images=4", "interpolate": "--steps=3"}.items():
        main([verb, f"--workdir={run}", f"--output={tmp_path / verb}.png", more])
        with Image.open(tmp_path / f"{verb}.png") as image:
            assert len(np.unique(image)) > 10


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
    assert_close(mean, q.mean.reshape(3, 32), 1e-5)
    assert_close(decoder.call(params, mean), trained.model.decode(trained.variables, q.mean).mean(), 1e-5)
    main(["report", f"--workdir={run}", f"--output={tmp_path / 'report.html'}"])
    assert "</html>" in (tmp_path / "report.html").read_text()
