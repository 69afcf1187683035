"""`export`: a folder that others can use without us, or none at all."""

import contextlib
import hashlib
import io
import json
import pathlib
import re
import shutil
import stat
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
import safetensors.numpy
import yaml

from vae_jax.cli import main
from vae_jax.trained import open_run

pytestmark = pytest.mark.long

REPOSITORY = pathlib.Path(__file__).parents[2]
TINY = [
    "--config.model.network.hidden=(8,)",
    "--config.model.latents=2",
    "--config.train.num_steps=12",
    "--config.train.report=False",
]
FILES = {"README.md", "config.json", "model.safetensors", "encoder.jaxexport", "decoder.jaxexport", "SHA256SUMS"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    main([f"--workdir={folder}", *TINY, "--config.train.checkpoint_every=6", "--config.evaluate.num_samples=5"])
    return folder


@pytest.fixture(scope="module")
def said(run: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str]:
    """An exported folder, in a place that had to be made, and what `export` printed."""
    folder = tmp_path_factory.mktemp("exported") / "of" / "tiny"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(["export", f"--workdir={run}", f"--output={folder}", "--license=cc0-1.0"])
    return folder, printed.getvalue()


def clean(script: str, folder: pathlib.Path) -> str:
    """What a script prints in a process that has neither `vae_jax` nor Flax, started in a folder."""
    blocked = "import sys; sys.modules['vae_jax'] = sys.modules['flax'] = None\n"
    command = [sys.executable, "-I", "-c", blocked + script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=True).stdout


def test_folder_is_whole_and_says_so(said) -> None:
    folder, printed = said
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]
    assert all(name in printed for name in FILES)
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert set(sums) == FILES - {"README.md", "SHA256SUMS"}
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in sums.items())
    # What is handed over is for others to read.
    umask = (folder / "config.json").stat().st_mode
    assert all(stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(umask) for path in folder.iterdir())


def test_functions_are_those_of_the_paper(said) -> None:
    """Appendix C of Kingma & Welling with ReLU, written out in NumPy from the parameters' names."""
    folder, _ = said
    rng = np.random.default_rng(0)
    x, z = rng.integers(0, 2, (3, 8, 8, 1)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    weights = safetensors.numpy.load_file(folder / "model.safetensors")

    def linear(name: str, values: np.ndarray) -> np.ndarray:
        return values @ weights[f"{name}.kernel"] + weights[f"{name}.bias"]

    hidden = np.maximum(linear("encoder.Dense_0", x.reshape(3, 64)), 0)
    logits = linear("decoder.Dense_1", np.maximum(linear("decoder.Dense_0", z), 0))
    encoder, decoder = (
        jax.export.deserialize(bytearray((folder / f"{name}.jaxexport").read_bytes()))
        for name in ("encoder", "decoder")
    )
    encoded, decoded = encoder.call(weights, x), decoder.call(weights, z)
    np.testing.assert_allclose(encoded["mean"], linear("posterior.mean", hidden), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoded["logvar"], linear("posterior.logvar", hidden), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(decoded.reshape(3, 64), 1 / (1 + np.exp(-logits)), rtol=1e-4, atol=1e-5)


def test_model_card_has_the_header_of_the_hub_and_what_was_measured(said, run: pathlib.Path) -> None:
    folder, _ = said
    _, header, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header) == {
        "license": "cc0-1.0",
        "library_name": "vae_jax",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["vae", "variational-autoencoder", "jax", "flax", "stablehlo"],
    }
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["split"] == "test" and f"ELBO {last['elbo']:.2f} ±" in text
    start = json.loads((run / "manifest.json").read_text())["starts"][-1]
    assert start["data"]["fingerprint"] in text and f"jax {jax.__version__}" in text
    assert "`model.network = mlp(hidden=(8,), activation=relu, dtype=float32)`" in text and "12 steps" in text


def test_what_the_model_card_shows_works(said) -> None:
    folder, _ = said
    without_us, with_us = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    shapes = "print(z.shape, reconstructions.shape, samples.shape)"
    assert clean(without_us + shapes, folder).strip() == "(5, 2) (5, 8, 8, 1) (5, 8, 8, 1)"
    given = "import numpy as np; images = np.zeros((4, 8, 8, 1), np.uint8)\n"
    shapes = "print(z.shape, reconstructions.shape, samples.shape, nats.shape)"
    command = [sys.executable, "-c", given + with_us + shapes]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=True)
    assert answer.stdout.strip() == "(4, 2) (4, 8, 8, 1) (16, 8, 8, 1) (4,)"


def test_evaluation_of_the_same_step_is_in_the_card(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = pathlib.Path(shutil.copytree(run, tmp_path / "run"))
    main(["evaluate", f"--workdir={copy}", "--num_images=20"])
    result = json.loads((copy / "evaluation.json").read_text())
    row = f"| log p(x) | {result['log_likelihood']['mean']:.3f} |"
    for step, there in ((12, True), (6, False)):
        folder = tmp_path / f"exported{step}"
        main(["export", f"--workdir={copy}", f"--output={folder}", f"--checkpoint={step}"])
        assert (row in (folder / "README.md").read_text()) == there
        assert json.loads((folder / "config.json").read_text())["step"] == step


@pytest.mark.manual
def test_replica_is_exported_alone(tmp_path: pathlib.Path) -> None:
    main([f"--workdir={tmp_path / 'run'}", *TINY, "--config.num_seeds=2"])
    main(["export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'one'}", "--replica=1"])
    found = safetensors.numpy.load_file(tmp_path / "one" / "model.safetensors")
    second = open_run(str(tmp_path / "run"), replica=1)
    np.testing.assert_array_equal(
        found["encoder.Dense_0.kernel"], second.variables["params"]["encoder"]["Dense_0"]["kernel"]
    )
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"ELBO {row['replicas']['elbo'][1]:.2f}" in (tmp_path / "one" / "README.md").read_text()


def test_nothing_of_the_machine_is_handed_over(tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "secret.npz", images=np.zeros((40, 8, 8), np.uint8))
    source = ["--config.data.source=npz", f"--config.data.path={tmp_path / 'secret.npz'}"]
    main([f"--workdir={tmp_path / 'run'}", *TINY, *source, "--config.train.batch_size=8"])
    (tmp_path / "secret.npz").unlink()
    main(["export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"])
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content and str(pathlib.Path.cwd()).encode() not in content, path.name


def test_empty_folder_is_filled(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    main(["export", f"--workdir={run}", f"--output={tmp_path / 'empty'}"])
    assert {path.name for path in (tmp_path / "empty").iterdir()} == FILES


@pytest.fixture
def refused(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Runs an export that has to be refused in a folder with a file and a folder, and gives its one line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "README.md").write_text("mine too")
    (tmp_path / "link").symlink_to("nowhere")

    def contents() -> dict[str, str | None]:
        return {str(path): path.read_text() if path.is_file() else None for path in sorted(tmp_path.rglob("*"))}

    def export(*arguments: str) -> str:
        before = contents()
        with pytest.raises(SystemExit) as caught:
            main(["export", *arguments])
        assert caught.value.code == 2
        errors = capsys.readouterr().err
        assert errors.startswith("vae-jax: error: ") and errors.count("\n") == 1
        assert contents() == before
        return errors

    return export


TARGETS = {
    "none": ([], ["--output="]),
    "empty name": (["--output="], ["--output="]),
    "file": (["--output=file"], ["'file' is a file", "--output"]),
    "folder with files": (["--output=full"], ["'full' has files in it", "--output"]),
    "here": (["--output=."], ["'.' has files in it"]),
    "below a file": (["--output=file/exported"], ["file", "--output"]),
    "place that can't be": (["--output=/proc/exported"], ["/proc", "--output"]),
    "long name": ([f"--output={'x' * 300}"], ["can't be used", "too long"]),
    "license of two lines": (["--output=new", "--license=mit\ntags: []"], ["--license", "apache-2.0"]),
    "no such checkpoint": (["--output=new", "--checkpoint=7"], ["'7'", "6, 12"]),
    "no such replica": (["--output=new", "--replica=1"], ["replica 1"]),
}


@pytest.mark.parametrize(("arguments", "names"), TARGETS.values(), ids=TARGETS)
def test_what_cannot_be_exported(arguments: list[str], names: list[str], run: pathlib.Path, refused) -> None:
    message = refused(f"--workdir={run}", *arguments)
    assert [name for name in names if name not in message] == []


def test_run_that_is_not_there(refused) -> None:
    assert "'lost' holds no run" in refused("--workdir=lost", "--output=new")
    assert "--workdir" in refused("--output=new")


def test_exported_folder_is_no_run(run: pathlib.Path, said, refused) -> None:
    message = refused(f"--workdir={said[0]}", "--output=new")
    assert "is no run" in message and "vae_jax.load" in message


def test_full_disk_leaves_nothing(run: pathlib.Path, refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: pathlib.Path, content: bytes) -> int:
        if path.name == "decoder.jaxexport":
            raise OSError(28, "No space left on device")
        with path.open("wb") as file:
            return file.write(content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    message = refused(f"--workdir={run}", "--output=new")
    assert "'new' can't be written (No space left on device)" in message
