"""Every verb on runs that aren't the plain one: rows with missing values, numbers of each image, maps, two players."""

import csv
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_runs import read_json, train

import vae_jax
from vae_jax.cli import main
from vae_jax.trained import TrainedModel, open_run

pytestmark = pytest.mark.long

KINDS = {
    "rows": ["--config.data.binarization=none", "--config.model.likelihood=gaussian(learned=True)"],
    "context": [
        *("--config.model.conditional=True", "--config.model.prior=conditional_gaussian"),
        "--config.train.learning_rate=0.1",
    ],
    "spatial": ["--config.model.network=conv(channels=(4,), spatial=True)"],
    "factor_vae": ["--config.objective=factor_vae(hidden=(8,), every=2)"],
}
DIAGNOSE = [
    *("--num_images=6", "--num_samples=20", "--optimization_steps=5", "--annealed_images=4", "--annealed_chains=4"),
    *("--temperatures=4", "--leapfrog_steps=2", "--latent_images=20", "--generated_images=20"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Runs on forty images of noise, or rows of five numbers some of which are missing; made when asked for."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    table = rng.normal(size=(40, 5)).astype(np.float32)
    table[rng.random(table.shape) < 0.2] = np.nan
    table[:, 0] = 1.0
    np.savez(folder / "rows.npz", rows=table)
    images = rng.integers(0, 256, (40, 8, 8), np.uint8)
    context = np.stack([np.arange(40) / 10, rng.normal(size=40)], axis=1)
    np.savez(folder / "context.npz", images=images, context=context, context_names=["angle", "width"])
    np.savez(folder / "images.npz", images=images)

    class Runs(dict):
        def __missing__(self, kind: str) -> pathlib.Path:
            file = folder / f"{kind if kind in ('rows', 'context') else 'images'}.npz"
            data = ["--config.data.source=npz", f"--config.data.path={file}", "--config.train.batch_size=8"]
            self[kind] = train(folder / kind, *KINDS[kind], *data, "--config.train.num_steps=6")
            return self[kind]

    return Runs()


def of_the_test_part(trained: TrainedModel) -> tuple[np.ndarray, np.ndarray | None]:
    split = trained.data.for_evaluation("test")
    return np.asarray(split.images, np.float32), split.context


@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_takes_the_run(kind: str, runs, tmp_path: pathlib.Path) -> None:
    run = pathlib.Path(shutil.copytree(runs[kind], tmp_path / "run"))
    told = ["--context=0.5,2"] if kind == "context" else []
    trained = open_run(str(run))
    x, context = of_the_test_part(trained)
    main(["evaluate", f"--workdir={run}"])
    found = read_json(run / "evaluation.json")
    assert found["num_images"] == 8 and np.isfinite(found["log_likelihood"]["mean"])
    np.testing.assert_allclose(
        found["log_likelihood"]["mean"], trained.log_likelihood(x, label=context).mean(), rtol=1e-4
    )
    main(["encode", f"--workdir={run}", f"--output={run / 'z.npz'}"])
    decoded = run / ("x.png" if kind == "rows" else "x.npz")
    main(["decode", f"--workdir={run}", f"--latents={run / 'z.npz'}", f"--output={decoded}"])
    with np.load(run / "z.npz") as latents:
        np.testing.assert_allclose(latents["mean"], trained.encode(x, context), atol=1e-5)
        if kind != "rows":
            expected = 255.0 * trained.decode(latents["mean"], context)
            np.testing.assert_allclose(np.load(decoded)["images"], expected, atol=0.51)
    main(["score", f"--workdir={run}", f"--output={run / 'scores.csv'}"])
    with (run / "scores.csv").open(newline="") as file:
        scores = [float(row["log_likelihood"]) for row in csv.DictReader(file)]
    assert len(scores) == 8 and scores == sorted(scores)
    for verb, more in (("sample", told), ("reconstruct", []), ("interpolate", told)):
        main([verb, f"--workdir={run}", f"--output={run / f'{verb}.png'}", *more])
        with Image.open(run / f"{verb}.png") as image:
            assert np.ptp(np.asarray(image)) > 0
    main(["diagnose", f"--workdir={run}", *DIAGNOSE])
    gaps = {name: entry["mean"] for name, entry in read_json(run / "diagnosis.json")["gaps"].items()}
    np.testing.assert_allclose(gaps["total"], gaps["approximation"] + gaps["amortization"], atol=1e-3)
    other = shutil.copytree(run, tmp_path / "other")
    main(["report", f"--workdir={run}"])
    main(["report", f"--workdir={run}", f"--workdir={other}"])
    assert "nats lie between the bound and log p(x)" in (run / "report.html").read_text()
    assert (run / "comparison.html").is_file()
    main(["export", f"--workdir={run}", f"--output={tmp_path / 'exported'}"])
    loaded = vae_jax.load(tmp_path / "exported")
    np.testing.assert_array_equal(loaded.reconstruct(x, context), trained.reconstruct(x, context))


def test_what_is_told_changes_what_is_said(runs, tmp_path: pathlib.Path) -> None:
    trained = open_run(str(runs["context"]))
    assert trained.context_names == ("angle", "width") and trained.model.context_size == 2
    x, context = of_the_test_part(trained)
    assert np.abs(trained.encode(x, context) - trained.encode(x, context + 1.0)).max() > 1e-3
    pictures = []
    for told in ("0.5,2", "0.5,-2", "0.5,2"):
        main(["sample", f"--workdir={runs['context']}", f"--context={told}", f"--output={tmp_path / 'out.png'}"])
        pictures.append((tmp_path / "out.png").read_bytes())
    assert pictures[0] == pictures[2] != pictures[1]


def test_wrong_numbers_of_an_image_are_refused(runs, tmp_path: pathlib.Path, refused) -> None:
    sample = ["sample", f"--workdir={runs['context']}"]
    assert "told numbers; add --context=angle,width" in refused(*sample)
    assert "set --context=angle,width, not --label" in refused(*sample, "--label=1")
    for wrong in ("1", "1,x", "1,nan", ""):
        assert "--context must be 2 finite numbers" in refused(*sample, f"--context={wrong}")
    np.savez(tmp_path / "z.npz", mean=np.zeros((3, 2)), context=np.zeros((3, 4)))
    message = refused("decode", f"--workdir={runs['context']}", f"--latents={tmp_path / 'z.npz'}")
    assert "2 finite numbers for each: angle, width" in message
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8), np.uint8))
    message = refused("encode", f"--workdir={runs['context']}", f"--input={tmp_path / 'x.npz'}")
    assert "add --context=angle,width, or use an .npz with images and context" in message


def test_a_run_is_used_where_its_data_is_gone(tmp_path: pathlib.Path, refused) -> None:
    np.savez(tmp_path / "mine.npz", images=np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8))
    run, source = tmp_path / "run", ["--config.data.source=npz", f"--config.data.path={tmp_path / 'mine.npz'}"]
    train(run, *source, "--config.train.batch_size=10")
    shutil.move(tmp_path / "mine.npz", tmp_path / "moved.npz")
    main(["encode", f"--workdir={run}", f"--input={tmp_path / 'moved.npz'}"])
    main(["sample", f"--workdir={run}"])
    for verb in ("encode", "evaluate", "reconstruct"):
        message = refused(verb, f"--workdir={run}")
        assert "not found" in message and f"change data.path in {run / 'config.json'}" in message
        assert "--config." not in message
    # Who does so has his run back; but of images in another form nothing is believed.
    config = run / "config.json"
    config.write_text(config.read_text().replace("mine.npz", "moved.npz"))
    main(["reconstruct", f"--workdir={run}"])
    np.savez(tmp_path / "moved.npz", images=np.zeros((60, 8, 8, 3), np.uint8))
    for command in (["evaluate"], ["encode"]):
        message = refused(*command, f"--workdir={run}")
        assert "its images were 8x8x1 with values to 255 and 0 classes, and are 8x8x3" in message
