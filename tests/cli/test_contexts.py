"""Models that are told numbers of each image, from training to every verb."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image
from safetensors.numpy import load_file

import vae_jax
from vae_jax.cli import main
from vae_jax.errors import UserError
from vae_jax.trained import open_run

pytestmark = pytest.mark.long

NAMES = ("angle", "width")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Four steps on twenty images of noise with two numbers each, and a prior that sees them."""
    folder, rng = tmp_path_factory.mktemp("contexts"), np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = ["file,angle,width"]
    for number in range(20):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / "images" / f"{number:02}.png")
        rows.append(f"{number:02}.png,{number / 10},{rng.normal():.3f}")
    (folder / "facts.csv").write_text("\n".join(rows))
    main(
        [
            f"--workdir={folder / 'run'}",
            *("--config.data.source=folder", f"--config.data.dir={folder / 'images'}"),
            f"--config.data.labels={folder / 'facts.csv'}",
            *("--config.data.validation_fraction=0.2", "--config.model.conditional=True"),
            *("--config.model.network.hidden=(8,)", "--config.model.latents=2"),
            *("--config.model.prior=conditional_gaussian", "--config.train.learning_rate=0.1"),
            *("--config.train.batch_size=4", "--config.train.num_steps=4", "--config.train.checkpoint_every=4"),
            *("--config.train.log_every=2", "--config.evaluate.num_samples=20"),
        ]
    )
    return folder / "run"


def test_training_saves_the_names_and_draws(run: pathlib.Path) -> None:
    assert json.loads((run / "images.json").read_text())["context_names"] == list(NAMES)
    assert {path.name.split("_")[0] for path in (run / "images").iterdir()} == {"samples", "reconstructions"}
    trained = open_run(str(run))
    assert trained.context_names == NAMES and trained.model.context_size == 2


def test_images_go_through_with_their_numbers(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    trained, latents, pictures = open_run(str(run)), tmp_path / "z.npz", tmp_path / "x.npz"
    main(["encode", f"--workdir={run}", f"--output={latents}"])
    main(["decode", f"--workdir={run}", f"--latents={latents}", f"--output={pictures}"])
    split = trained.data.for_evaluation("test")
    with np.load(latents) as found, np.load(pictures) as images:
        np.testing.assert_array_equal(found["context"], split.context)
        x = np.asarray(split.images, np.float32)
        np.testing.assert_allclose(found["mean"], trained.encode(x, split.context), atol=1e-5)
        assert np.abs(found["mean"] - trained.encode(x, split.context + 1.0)).max() > 1e-3
        expected = 255.0 * trained.decode(found["mean"], split.context)
        assert np.abs(images["images"] - expected).max() <= 0.51
    main(["decode", f"--workdir={run}", f"--latents={latents}", f"--output={pictures}", "--context=0.5,-3"])
    with np.load(latents) as found, np.load(pictures) as images:
        assert np.abs(images["images"] - 255.0 * trained.decode(found["mean"], np.array([0.5, -3.0]))).max() <= 0.51
        assert np.abs(images["images"] - expected).max() > 1.0


def test_evaluate_and_score_use_the_numbers(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    main(["evaluate", f"--workdir={run}"])
    trained = open_run(str(run))
    split = trained.data.for_evaluation("test")
    x = np.asarray(split.images, np.float32)
    expected = trained.log_likelihood(x, label=split.context).mean()
    found = json.loads((run / "evaluation.json").read_text())["log_likelihood"]["mean"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert abs(found - trained.log_likelihood(x, label=split.context + 2.0).mean()) > 1e-2
    output = tmp_path / "scores.csv"
    main(["score", f"--workdir={run}", f"--output={output}"])
    assert len(output.read_text().splitlines()) == 1 + len(split.images)


@pytest.mark.parametrize(
    "verb",
    [
        ["sample", "--context=0.5,2", "--num_images=4"],
        ["reconstruct"],
        ["reconstruct", "--split=train"],
        ["interpolate"],
        ["interpolate", "--context=1,-1"],
    ],
)
def test_verbs_that_draw(run: pathlib.Path, tmp_path: pathlib.Path, verb: list[str]) -> None:
    main([*verb, f"--workdir={run}", f"--output={tmp_path / 'out.png'}"])
    with Image.open(tmp_path / "out.png") as image:
        assert np.ptp(np.asarray(image)) > 0


def test_sample_follows_the_context(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pictures = []
    for context in ("0.5,2", "0.5,-2", "0.5,2"):
        main(["sample", f"--workdir={run}", f"--context={context}", f"--output={tmp_path / 'out.png'}"])
        pictures.append((tmp_path / "out.png").read_bytes())
    assert pictures[0] == pictures[2] != pictures[1]


def test_other_verbs(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    main(["report", f"--workdir={run}", f"--output={tmp_path / 'report.html'}"])
    main(["report", f"--workdir={run}", f"--workdir={other}", f"--output={tmp_path / 'comparison.html'}"])
    page = (tmp_path / "report.html").read_text()
    assert "told angle, width" in page and "Samples are told the numbers of the first images" in page
    main(["diagnose", f"--workdir={run}"])


# The card's example leaves it to Python to close its files.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_exported_functions_take_the_numbers(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "exported"
    main(["export", f"--workdir={run}", f"--output={folder}", "--license=mit"])
    assert str(run.parent) not in (folder / "config.json").read_text()
    card = (folder / "README.md").read_text()
    assert "`label`: float32 [b, 2]: angle, width." in card
    trained, loaded = open_run(str(run)), vae_jax.load(folder)
    x = np.random.default_rng(0).integers(0, 2, (3, 8, 8, 1)).astype(np.float32)
    told = np.array([[0.1, 1], [0.2, 2], [0.3, 3]], np.float32)
    encoder = jax_export.deserialize((folder / "encoder.jaxexport").read_bytes())
    z = encoder.call(load_file(folder / "model.safetensors"), x, told)["mean"]
    np.testing.assert_allclose(z, trained.encode(x, told), atol=1e-5)
    np.testing.assert_array_equal(loaded.reconstruct(x, told), trained.reconstruct(x, told))
    code = card.split("```python\n")[1].split("```")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(code, {})


def test_wrong_flags_are_one_line(run: pathlib.Path, tmp_path: pathlib.Path, refused) -> None:
    sample = ["sample", f"--workdir={run}"]
    assert "told numbers; add --context=angle,width" in refused(*sample)
    assert "set --context=angle,width, not --label" in refused(*sample, "--label=1")
    for wrong in ("1", "1,2,3", "1,x", "1,nan", "1,1e300", ""):
        assert "--context must be 2 finite numbers" in refused(*sample, f"--context={wrong}")
    np.save(tmp_path / "z.npy", np.zeros((3, 2)))
    decode = ["decode", f"--workdir={run}", f"--latents={tmp_path / 'z.npy'}"]
    assert "the file has none; add --context=angle,width" in refused(*decode)
    np.savez(tmp_path / "z.npz", mean=np.zeros((3, 2)), context=np.zeros((3, 4)))
    assert "2 finite numbers for each: angle, width" in refused(*decode[:2], f"--latents={tmp_path / 'z.npz'}")
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 8, 8), np.uint8))
    message = refused("encode", f"--workdir={run}", f"--input={tmp_path / 'x.npz'}")
    assert "add --context=angle,width, or use an .npz with images and context" in message
    trained = open_run(str(run))
    for wrong in (None, [1.0], [[1.0, 2.0]] * 2, [np.inf, 0.0]):
        with pytest.raises(UserError, match="2 finite numbers for each: angle, width"):
            trained.decode(np.zeros((3, 2)), wrong and np.array(wrong))


def test_models_without_numbers_refuse_them(tmp_path: pathlib.Path, refused) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, context=np.arange(20))
    command = [f"--workdir={tmp_path / 'run'}", "--config.data.source=npz", f"--config.data.path={tmp_path / 'x.npz'}"]
    assert "data.labels has no effect on data.source 'npz'" in refused(*command, "--config.data.labels=x.csv")
    assert "depends on a context" in refused(*command, "--config.model.prior=conditional_gaussian")
    small = ["--config.model.network.hidden=(4,)", "--config.train.batch_size=4", "--config.train.num_steps=2"]
    main([*command, *small, "--config.train.report=False"])
    assert "leave --context out" in refused("sample", f"--workdir={tmp_path / 'run'}", "--context=1")
    assert "context_names" in (tmp_path / "run" / "images.json").read_text()
