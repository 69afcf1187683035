"""`export`: a folder that others can use without us, or none at all."""

import hashlib
import pathlib
import re
import stat
import subprocess
import sys

import jax.export
import numpy as np
import pytest
import safetensors.numpy
import yaml
from tiny_runs import read_json, rows, train

from vae_jax.cli import main
from vae_jax.trained import open_run

FILES = {"README.md", "config.json", "model.safetensors", "encoder.jaxexport", "decoder.jaxexport", "SHA256SUMS"}


@pytest.fixture(scope="module")
def exported(finished: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An exported folder, in a place that had to be made."""
    folder = tmp_path_factory.mktemp("exported") / "of" / "tiny"
    main(["export", f"--workdir={finished}", f"--output={folder}", "--license=cc0-1.0"])
    return folder


def test_the_folder_is_whole_and_readable(exported: pathlib.Path) -> None:
    assert {path.name for path in exported.iterdir()} == FILES
    assert [path.name for path in exported.parent.iterdir()] == ["tiny"]
    lines = (exported / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert set(sums) == FILES - {"README.md", "SHA256SUMS"}
    assert all(hashlib.sha256((exported / name).read_bytes()).hexdigest() == sums[name] for name in sums)
    # What is handed over is for others to read.
    assert all(path.stat().st_mode & stat.S_IRGRP for path in exported.iterdir())


def test_functions_are_those_of_the_paper(exported: pathlib.Path) -> None:
    """Appendix C of Kingma & Welling with ReLU, written out in NumPy from the parameters' names."""
    rng = np.random.default_rng(0)
    x, z = rng.integers(0, 2, (3, 8, 8, 1)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    weights = safetensors.numpy.load_file(exported / "model.safetensors")

    def linear(name: str, values: np.ndarray) -> np.ndarray:
        return values @ weights[f"{name}.kernel"] + weights[f"{name}.bias"]

    hidden = np.maximum(linear("encoder.Dense_0", x.reshape(3, 64)), 0)
    logits = linear("decoder.Dense_1", np.maximum(linear("decoder.Dense_0", z), 0))
    encoder, decoder = (
        jax.export.deserialize(bytearray((exported / f"{name}.jaxexport").read_bytes()))
        for name in ("encoder", "decoder")
    )
    encoded, decoded = encoder.call(weights, x), decoder.call(weights, z)
    np.testing.assert_allclose(encoded["mean"], linear("posterior.mean", hidden), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoded["logvar"], linear("posterior.logvar", hidden), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(decoded.reshape(3, 64), 1 / (1 + np.exp(-logits)), rtol=1e-4, atol=1e-5)


def test_the_card_has_a_header_and_what_was_measured(exported: pathlib.Path, finished: pathlib.Path) -> None:
    _, header, text = (exported / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header)["license"] == "cc0-1.0" and "stablehlo" in yaml.safe_load(header)["tags"]
    start, last = read_json(finished / "manifest.json")["starts"][-1], rows(finished)[-1]
    assert f"ELBO {last['elbo']:.2f} ±" in text and start["data"]["fingerprint"] in text
    assert "`model.network = mlp(hidden=(8,), activation=relu, dtype=float32)`" in text and "12 steps" in text


@pytest.mark.long
def test_what_the_card_shows_works(exported: pathlib.Path) -> None:
    without_us, with_us = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    for script, more, shapes in (
        (
            "import sys; sys.modules['vae_jax'] = sys.modules['flax'] = None\n" + without_us,
            "",
            "(5, 2) (5, 8, 8, 1) (5, 8, 8, 1)",
        ),
        (
            "import numpy as np; images = np.zeros((4, 8, 8, 1), np.uint8)\n" + with_us,
            ", nats.shape",
            "(4, 2) (4, 8, 8, 1) (16, 8, 8, 1) (4,)",
        ),
    ):
        script += f"print(z.shape, reconstructions.shape, samples.shape{more})"
        command = [sys.executable, "-c", script]
        answer = subprocess.run(command, cwd=exported, capture_output=True, text=True, timeout=600, check=True)
        assert answer.stdout.strip() == shapes


@pytest.mark.long
def test_only_the_evaluation_of_the_same_step_is_in_the_card(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    main(["evaluate", f"--workdir={run}", "--num_images=20"])
    result = read_json(run / "evaluation.json")
    row = f"| log p(x) | {result['log_likelihood']['mean']:.3f} |"
    for step, there in ((12, True), (6, False)):
        folder = tmp_path / f"exported{step}"
        folder.mkdir()  # an empty one is filled
        main(["export", f"--workdir={run}", f"--output={folder}", f"--checkpoint={step}"])
        assert (row in (folder / "README.md").read_text()) == there
        assert read_json(folder / "config.json")["step"] == step


@pytest.mark.long
def test_a_replica_is_exported_alone_and_nothing_of_the_machine(tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "secret.npz", images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))
    source = ["--config.data.source=npz", f"--config.data.path={tmp_path / 'secret.npz'}"]
    run = train(tmp_path / "run", *source, "--config.train.batch_size=8", "--config.num_seeds=2")
    (tmp_path / "secret.npz").unlink()
    main(["export", f"--workdir={run}", f"--output={tmp_path / 'out'}", "--replica=1"])
    found = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    second = open_run(str(run), replica=1).variables["params"]["encoder"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(found["encoder.Dense_0.kernel"], second)
    assert f"ELBO {rows(run)[-1]['replicas']['elbo'][1]:.2f}" in (tmp_path / "out" / "README.md").read_text()
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content and str(pathlib.Path.cwd()).encode() not in content, path.name


def test_an_exported_folder_is_no_run(exported: pathlib.Path, refused) -> None:
    message = refused("export", f"--workdir={exported}", "--output=new")
    assert "is no run" in message and "vae_jax.load" in message


def test_a_full_disk_leaves_nothing(finished: pathlib.Path, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: pathlib.Path, content: bytes) -> int:
        if path.name == "decoder.jaxexport":
            raise OSError(28, "No space left on device")
        with path.open("wb") as file:
            return file.write(content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    message = refused("export", f"--workdir={finished}", "--output=new")
    assert "'new' can't be written (No space left on device)" in message
