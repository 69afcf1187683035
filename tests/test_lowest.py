"""What the lowest versions that pyproject.toml allows are tried with: each library's part in a run, end to end."""

import pathlib
import re
import tomllib

import numpy as np
import pytest
from PIL import Image

import vae_jax
from vae_jax.cli import main
from vae_jax.cli.charts import kl_chart

REPOSITORY = pathlib.Path(__file__).parents[1]
TINY = [
    *("--config.model.network.hidden=(8,)", "--config.model.latents=2", "--config.train.batch_size=8"),
    *("--config.train.num_steps=6", "--config.train.checkpoint_every=3", "--config.evaluate.num_samples=5"),
]


def versions(lines: list[str], relation: str) -> dict[str, list[int]]:
    """Version by name, without the zeros at its end."""
    found = {}
    for line in lines:
        if match := re.fullmatch(rf"([\w-]+)(?:\[\w+\])?{relation}([\d.]+)", line):
            numbers = match[2].rstrip(".0").split(".")
            found[match[1].lower().replace("_", "-")] = [int(number) for number in numbers]
    return found


def test_what_is_tried_is_what_is_declared() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    tried = versions((REPOSITORY / "constraints-lowest.txt").read_text().splitlines(), "==")
    lowest = versions(declared, ">=")
    assert len(lowest) == len(declared)
    assert {name: tried.get(name) for name in lowest} == lowest


@pytest.mark.manual
@pytest.mark.smoke
def test_run_of_streamed_pictures_by_every_library(tmp_path: pathlib.Path) -> None:
    """Pillow and Grain read, TensorBoard's writer listens, Plotly and Matplotlib draw, safetensors hands over."""
    pictures, run, exported = tmp_path / "pictures", tmp_path / "run", tmp_path / "exported"
    rng = np.random.default_rng(0)
    for number in range(60):
        path = pictures / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(path)
    data = ["--config.data.source=folder", f"--config.data.dir={pictures}", "--config.data.resident_mb=0"]
    main([f"--workdir={run}", *TINY, *data])
    for verb in ("evaluate", "encode", "score"):
        main([verb, f"--workdir={run}"])
    kl_chart(run / "kl.png", [1.0, 3.0, 2.0])
    main(["report", f"--workdir={run}"])
    main(["export", f"--workdir={run}", f"--output={exported}"])
    assert "</html>" in (run / "report.html").read_text()
    assert list((run / "tensorboard").iterdir()) and np.asarray(Image.open(run / "kl.png")).std() > 0
    images = np.stack([np.asarray(Image.open(path))[..., None] for path in sorted(pictures.rglob("*.png"))])
    ours, theirs = (vae_jax.load(folder).encode(images) for folder in (run, exported))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.long
@pytest.mark.smoke
def test_estimator_in_a_pipeline() -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X = np.random.default_rng(0).normal(size=(50, 4))
    vae = vae_jax.VAETransformer(n_components=2, network="mlp(hidden=(4,))", max_iter=2, batch_size=10, random_state=0)
    pipeline = make_pipeline(StandardScaler(), vae).fit(X)
    assert pipeline.transform(X).shape == (50, 2) and np.isfinite(pipeline.score(X))
