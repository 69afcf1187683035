"""Every member of every part, exported and reloaded where neither `vae_jax` nor Flax can be imported."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checked_types import unchecked
from small_parts import small

from vae_jax.build import build_model_for
from vae_jax.build.model import LIKELIHOODS, NETWORKS, POSTERIORS, PRIORS
from vae_jax.config import Config, DataConfig, ModelConfig
from vae_jax.data import ImageKind
from vae_jax.export import read_export, write_export
from vae_jax.export.functions import variables_like
from vae_jax.models import Batch, decode_flat, flat_point, num_latents
from vae_jax.runs import RunFolder
from vae_jax.trained import TrainedModel

# Sides that no stage halves, three colours.
KIND = ImageKind((6, 5, 3), 255, 4)
# The default model is reloaded in a clean process by tests/cli/test_export.py; here every part is.
pytestmark = pytest.mark.manual

MODELS = {
    "mlp": {},
    "linear": {"network": "mlp(hidden=())", "likelihood": "gaussian"},
    "conv": {"network": "conv", "likelihood": "continuous_bernoulli", "posterior": "full_gaussian", "prior": "mixture"},
    "resnet": {"network": "resnet", "likelihood": "gaussian", "posterior": "planar", "prior": "realnvp"},
    "conv_resize": {
        **{"network": "conv(channels=(4,), upsampling=resize)", "likelihood": "gaussian(learned=True)"},
        **{"posterior": "iaf", "conditional": True},
    },
    "two_layers": {"likelihood": "gaussian_per_pixel", "posterior": "hierarchical", "prior": "hierarchical"},
    "point": {"likelihood": "discretized_logistic", "posterior": "point_mass", "conditional": True},
    "vampprior": {"likelihood": "discretized_logistic_mixture", "prior": "vampprior"},
    "told": {"likelihood": "poisson", "prior": "conditional_gaussian", "conditional": True},
    "bfloat16": {"network": "conv(channels=(4,), dtype=bfloat16, activation=silu)"},
    "map": {"network": "conv(channels=(4,), spatial=True)"},
}

SCRIPT = """
import sys
sys.modules["vae_jax"] = sys.modules["flax"] = None
import pathlib
import numpy as np
from jax import export
from safetensors.numpy import load_file

for folder in map(pathlib.Path, sys.argv[1:]):
    params = load_file(folder / "model.safetensors")
    encoder = export.deserialize((folder / "encoder.jaxexport").read_bytes())
    decoder = export.deserialize((folder / "decoder.jaxexport").read_bytes())
    assert set(encoder.platforms) == set(decoder.platforms) == {"cpu", "cuda", "tpu"}
    given = np.load(folder / "inputs.npz")
    label = [given["label"]] if "label" in given.files else []
    encoded = encoder.call(params, given["x"], *label)
    np.savez(folder / "outputs.npz", **encoded, decoded=decoder.call(params, given["z"], *label))
"""


def trained_run(name: str, place: pathlib.Path) -> TrainedModel:
    """A model whose every parameter is some other number, as if it were trained."""
    parts = {field: small(value) if isinstance(value, str) else value for field, value in MODELS[name].items()}
    model_config = ModelConfig(**{"network": small("mlp"), "latents": 2, **parts})
    binarization = "dynamic" if model_config.likelihood == "bernoulli" else "none"
    config = Config(data=DataConfig(binarization=binarization), model=model_config)
    model = build_model_for(config, KIND)
    rng = np.random.default_rng(0)
    like = variables_like(model, KIND.image_shape)["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0.0, 0.4, leaf.shape), leaf.dtype), like)

    def no_data():
        raise AssertionError("an export needs no data")

    return TrainedModel(RunFolder(place / "no run"), config, KIND, model, {"params": params}, 7, 0, no_data)


def inputs(trained: TrainedModel) -> dict[str, np.ndarray]:
    rng, count = np.random.default_rng(0), 4
    given = {
        "x": rng.integers(0, 2, (count, *KIND.image_shape)).astype(np.float32),
        "z": rng.normal(size=(count, num_latents(trained.model))).astype(np.float32),
    }
    return given | ({"label": rng.integers(0, 4, count).astype(np.int32)} if trained.model.context_size else {})


def said_by_the_model(trained: TrainedModel, given: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    model = trained.model

    @jax.jit
    def outputs(params, x, z, label):
        said = {
            "mean": flat_point(model, params, Batch(x, context=label)),
            "decoded": decode_flat(model, params, z, label).mean(),
        }
        if trained.config.model.posterior == "diagonal_gaussian":
            said["logvar"] = model.encode(params, Batch(x, context=label)).logvar.reshape(len(x), -1)
        return said

    return outputs(trained.variables, given["x"], given["z"], given.get("label"))


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[TrainedModel, pathlib.Path]]:
    """Each model and its folder, in which a clean process has put what it says of each batch."""
    place = tmp_path_factory.mktemp("exported")
    found = {}
    for name in MODELS:
        trained, folder = trained_run(name, place), place / name
        folder.mkdir()
        with unchecked():
            write_export(folder, trained, name, "mit")
        np.savez(folder / "inputs.npz", **inputs(trained))
        found[name] = trained, folder
    command = [sys.executable, "-I", "-c", SCRIPT, *(str(folder) for _, folder in found.values())]
    subprocess.run(command, cwd=place, check=True, timeout=600)
    return found


def test_no_member_is_missing() -> None:
    registries = {"network": NETWORKS, "likelihood": LIKELIHOODS, "posterior": POSTERIORS, "prior": PRIORS}
    for field, members in registries.items():
        default = getattr(ModelConfig(), field)
        assert {model.get(field, default).partition("(")[0] for model in MODELS.values()} == set(members)


@pytest.mark.parametrize("name", MODELS)
def test_a_clean_process_says_what_the_model_says(name: str, reloaded) -> None:
    trained, folder = reloaded[name]
    expected = jax.device_get(said_by_the_model(trained, inputs(trained)))
    with np.load(folder / "outputs.npz") as outputs:
        assert set(outputs.files) == set(expected)
        for output, values in expected.items():
            assert np.std(values) > 1e-3
            # What is rounded to 8 bits on the way is for the compiler to choose.
            tolerance = 2e-2 if name == "bfloat16" else 1e-5
            np.testing.assert_allclose(outputs[output], values, rtol=tolerance, atol=tolerance, err_msg=output)
    found = read_export(folder)
    assert (found.config, found.kind, found.step) == (trained.config, KIND, 7)
    jax.tree.map(np.testing.assert_array_equal, found.variables, trained.variables)
    assert jax.tree.structure(found.variables) == jax.tree.structure(trained.variables)
