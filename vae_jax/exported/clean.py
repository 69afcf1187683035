"""Whether a folder says the same where there is no `vae_jax`: asked of another process."""

import contextlib
import functools
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np

from vae_jax.errors import UserError
from vae_jax.exported.functions import describe_posterior
from vae_jax.vae import VAE, Params, apply

_NUM_IMAGES = 3
# Different programs of the same formulas round differently, and bfloat16 has 8 bits.
_TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2}

# Reads a folder as anybody would who has only its model card.
_SCRIPT = """
import sys
sys.modules["vae_jax"] = None
import pathlib, jax, jax.export, numpy as np, safetensors.numpy
import os, threading, time
parent = os.getppid()
def end_with_parent():
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)
threading.Thread(target=end_with_parent, daemon=True).start()
folder, inputs, outputs = map(pathlib.Path, sys.argv[1:])
params = safetensors.numpy.load_file(folder / "model.safetensors")
encoder = jax.export.deserialize((folder / "encoder.jaxexport").read_bytes())
decoder = jax.export.deserialize((folder / "decoder.jaxexport").read_bytes())
given = dict(np.load(inputs, allow_pickle=False))
label = [given["label"]] if "label" in given else []
answer = {**encoder.call(params, given["x"], *label), "decoded": decoder.call(params, given["z"], *label)}
np.savez(outputs, **answer)
"""


class Reloaded(NamedTuple):
    """What the functions of a folder said in a process that can't import `vae_jax`.

    Attributes:
        encoded: Of the images, by name: `mean` and, for some posteriors, `logvar`.
        decoded: Of the latents.
    """

    encoded: dict[str, np.ndarray]
    decoded: np.ndarray


def reload_without_us(folder: pathlib.Path, x: np.ndarray, z: np.ndarray, label: np.ndarray | None = None) -> Reloaded:
    """Calls the functions of an exported folder in a process of their own, on the CPU.

    Args:
        folder: The folder.
        x: `float32[B, H, W, C]`, images.
        z: `float32[B, D]`, latents.
        label: `int32[B]`, classes for a conditional model.

    Raises:
        UserError: If that process fails, with the last line that it said.
    """
    # Within the folder, which is cleared away with all in it where this process is killed.
    with tempfile.TemporaryDirectory(dir=folder) as place:
        inputs, outputs = pathlib.Path(place, "inputs.npz"), pathlib.Path(place, "outputs.npz")
        given: dict[str, Any] = {"x": x, "z": z} | ({} if label is None else {"label": label})
        np.savez(inputs, **given)
        command = [
            sys.executable,
            "-P",
            "-c",
            _SCRIPT,
            str(folder.absolute()),
            str(inputs.absolute()),
            str(outputs.absolute()),
        ]
        # The accelerator is this process's.
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        answer = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        if answer.returncode:
            last = (answer.stderr.strip().splitlines() or [f"status {answer.returncode}"])[-1]
            raise UserError(f"the export can't be read by a process of its own ({last}); mend that, or add --noverify")
        with np.load(outputs, allow_pickle=False) as found:
            arrays = dict(found)
    decoded = arrays.pop("decoded")
    return Reloaded(arrays, decoded)


def check_clean_reload(
    folder: pathlib.Path, model: VAE, params: Params, image_shape: tuple[int, int, int], dtype: str
) -> float:
    """Compares the functions of an exported folder, reloaded without `vae_jax`, with the model.

    Args:
        folder: The folder.
        model: The model.
        params: Its parameters.
        image_shape: Height, width, channels.
        dtype: What its networks compute in.

    Returns:
        The largest difference, as a share of the largest output where that is above 1.

    Raises:
        UserError: If the folder can't be read, or says something else than the model.
    """
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (_NUM_IMAGES, *image_shape)).astype(np.float32)
    z = rng.normal(size=(_NUM_IMAGES, model.prior.latents)).astype(np.float32)
    label = rng.integers(0, model.num_classes, _NUM_IMAGES).astype(np.int32) if model.num_classes else None
    with _on_cpu():
        params = jax.device_get(params)
        expected = {
            **jax.jit(functools.partial(describe_posterior, model))(params, x, label),
            "decoded": jax.jit(functools.partial(apply, model), static_argnums=1)(params, "decode_mean", z, label),
        }
    found = reload_without_us(folder, x, z, label)
    difference = 0.0
    for name, array in {**found.encoded, "decoded": found.decoded}.items():
        if not np.all(np.isfinite(expected[name])):
            raise UserError(f"the model itself says {name} that are not finite; try --checkpoint=best")
        scale = max(1.0, float(np.max(np.abs(expected[name]))))
        difference = max(difference, float(np.max(np.abs(array - expected[name]))) / scale)
    if not difference <= _TOLERANCES.get(dtype, 1e-3):
        raise UserError(
            f"reloaded, the export differs from the model by {difference:.1e}, so it wasn't kept; please report this, "
            "with the run's config.json"
        )
    return difference


def _on_cpu() -> contextlib.AbstractContextManager:
    """Where the other process computes too, if this one has been left a CPU to compute on."""
    try:
        return jax.default_device(jax.devices("cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()
