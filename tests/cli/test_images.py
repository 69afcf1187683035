"""Verbs that take images or latents and give others: encode, decode, interpolate, score."""

import csv
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.transform
import scipy.special
import scipy.stats
from PIL import Image

from vae_jax.cli import main
from vae_jax.cli.interpolate import between
from vae_jax.models import Batch, decode_flat, flat_point
from vae_jax.trained import open_run

pytestmark = pytest.mark.long

TINY = [
    "--config.model.network.hidden=(8,)",
    "--config.train.num_steps=12",
    "--config.evaluate.num_samples=20",
    "--config.train.report=False",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Models of the digits: a plain one with two latents, one that is told the class, one with a flow."""
    folder = tmp_path_factory.mktemp("runs")
    main([f"--workdir={folder / 'plain'}", *TINY, "--config.model.latents=2", "--config.train.num_steps=300"])
    main([f"--workdir={folder / 'told'}", *TINY, "--config.model.latents=3", "--config.model.conditional=True"])
    small = ["--config.model.posterior.flows=1", "--config.model.posterior.hidden=(8,)"]
    main([f"--workdir={folder / 'flow'}", *TINY, "--config.model.latents=4", "--config.model.posterior=iaf", *small])
    return {name: folder / name for name in ("plain", "told", "flow")}


def archive(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def size_of(path: pathlib.Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("name", ["plain", "told", "flow"])
def test_latents_of_a_split(name: str, runs, tmp_path: pathlib.Path) -> None:
    output = tmp_path / "latents.npz"
    main(["encode", f"--workdir={runs[name]}", f"--output={output}"])
    found, trained = archive(output), open_run(str(runs[name]))
    split = trained.data.for_evaluation("test")
    label = jnp.asarray(split.labels) if trained.model.context_size else None
    x = jnp.asarray(split.images, jnp.float32)  # binary already
    np.testing.assert_allclose(
        found["mean"], flat_point(trained.model, trained.variables, Batch(x, context=label)), atol=1e-5
    )
    np.testing.assert_array_equal(found["labels"], split.labels)
    assert found["names"].tolist() == [str(number) for number in range(len(split.images))]
    # Of a flow's q(z|x) no variances are known.
    assert ("logvar" in found) == (name != "flow")
    if name != "flow":
        logvar = trained.model.encode(trained.variables, Batch(x, context=label)).logvar
        np.testing.assert_allclose(found["logvar"], logvar, atol=1e-5)


@pytest.fixture
def pictures(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with folders: grey, colour, large, not square; a file that is no picture, and one cut short."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(np.repeat(pixels[..., None], 3, axis=-1)).save(folder / "below" / "b.webp", lossless=True)
    Image.fromarray(np.kron(pixels, np.ones((4, 4), np.uint8))).save(folder / "below" / "c.png")
    Image.fromarray(np.pad(pixels, ((0, 0), (5, 5)))).save(folder / "d.png")
    (folder / "e.txt").write_text("not a picture, and not called one")
    (folder / "f.jpg").write_bytes(b"not a picture")
    (folder / "g.png").write_bytes((folder / "a.png").read_bytes()[:60])
    return folder


def test_folder_of_pictures(
    runs, pictures: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "latents.npz"
    main(["encode", f"--workdir={runs['plain']}", f"--input={pictures}", f"--output={output}"])
    found, errors = archive(output), capsys.readouterr().err
    assert found["names"].tolist() == ["a.png", "below/b.webp", "below/c.png", "d.png"]
    assert "f.jpg" in errors and "g.png" in errors and "2 of 6 files are left out" in errors
    assert "e.txt" not in errors


def test_pictures_are_brought_to_the_form_of_the_models(pictures: pathlib.Path) -> None:
    from vae_jax.data import ImageKind
    from vae_jax.data.user_images import read_images

    found, _ = read_images(str(pictures), ImageKind((8, 8, 1), 16, 10))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    with Image.open(pictures / "below" / "c.png") as large:
        resized = np.asarray(large.resize((8, 8), Image.Resampling.BILINEAR))
    for image, expected in zip(np.asarray(found.split.images), (pixels, pixels, resized, pixels), strict=True):
        np.testing.assert_array_equal(image[..., 0], expected)
    colours, _ = read_images(str(pictures / "a.png"), ImageKind((8, 8, 3), 255, 0))
    np.testing.assert_array_equal(np.asarray(colours.split.images)[0], np.repeat(pixels[..., None], 3, axis=-1))


def test_unreadable_files_can_be_refused(runs, pictures: pathlib.Path, refused) -> None:
    message = refused("encode", f"--workdir={runs['plain']}", f"--input={pictures}", "--noskip_unreadable")
    assert "f.jpg" in message and "mend or remove it" in message


def test_latents_come_back_as_images(runs, tmp_path: pathlib.Path) -> None:
    latents, output = tmp_path / "latents.npz", tmp_path / "images.npz"
    for name in ("plain", "told"):
        main(["encode", f"--workdir={runs[name]}", f"--output={latents}"])
        main(["decode", f"--workdir={runs[name]}", f"--latents={latents}", f"--output={output}"])
        trained, found = open_run(str(runs[name])), archive(latents)
        label = jnp.asarray(found["labels"]) if trained.model.context_size else None
        logits = decode_flat(trained.model, trained.variables, jnp.asarray(found["mean"]), label).outputs
        expected = 255.0 * scipy.special.expit(np.asarray(logits, np.float64))
        assert np.abs(archive(output)["images"] - expected).max() <= 0.51
    np.save(tmp_path / "z.npy", np.zeros((5, 2)))
    main(["decode", f"--workdir={runs['plain']}", f"--latents={tmp_path / 'z.npy'}", f"--output={tmp_path / 'z.png'}"])
    assert size_of(tmp_path / "z.png") == (5 * 57 + 1, 58)


def test_latents_that_do_not_fit(runs, tmp_path: pathlib.Path, refused) -> None:
    command = ["decode", f"--workdir={runs['plain']}", f"--output={tmp_path / 'out.png'}"]
    np.save(tmp_path / "wide.npy", np.zeros((5, 3)))
    assert "must be finite numbers [N, 2]" in refused(*command, f"--latents={tmp_path / 'wide.npy'}")
    np.save(tmp_path / "nan.npy", np.full((1, 2), np.nan))
    assert "must be finite numbers" in refused(*command, f"--latents={tmp_path / 'nan.npy'}")
    np.savez(tmp_path / "other.npz", images=np.zeros((5, 2)))
    assert "it holds images, but not z or mean" in refused(*command, f"--latents={tmp_path / 'other.npz'}")
    (tmp_path / "text.npz").write_text("no archive")
    assert "can't be read as latents" in refused(*command, f"--latents={tmp_path / 'text.npz'}")
    np.save(tmp_path / "objects.npy", np.array([[None, None]]), allow_pickle=True)
    assert "can't be read as latents" in refused(*command, f"--latents={tmp_path / 'objects.npy'}")
    assert "No such file" in refused(*command, f"--latents={tmp_path / 'absent.npy'}")
    assert "add --latents=FILE" in refused(*command)
    np.save(tmp_path / "z.npy", np.zeros((5, 3)))
    told = ["decode", f"--workdir={runs['told']}", f"--latents={tmp_path / 'z.npy'}"]
    assert "add --label=CLASS" in refused(*told)
    assert "from 0 to 9" in refused(*told, "--label=10")


def test_images_that_do_not_fit(runs, tmp_path: pathlib.Path, refused) -> None:
    for verb in ("encode", "score", "interpolate"):
        command = [verb, f"--workdir={runs['plain']}"]
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert "there are no images" in refused(*command, f"--input={tmp_path / 'empty'}")
        assert "not found" in refused(*command, f"--input={tmp_path / 'absent'}")
        np.savez(tmp_path / "large.npz", images=np.zeros((2, 9, 9), np.uint8))
        assert "this model needs (N, 8, 8, 1)" in refused(*command, f"--input={tmp_path / 'large.npz'}")
        assert "no split 'tset'" in refused(*command, "--split=tset")
    np.savez(tmp_path / "unlabelled.npz", images=np.zeros((2, 8, 8), np.uint8))
    message = refused("encode", f"--workdir={runs['told']}", f"--input={tmp_path / 'unlabelled.npz'}")
    assert "these images have no labels" in message and "an .npz with images and labels" in message


def test_archive_without_an_image(runs, tmp_path: pathlib.Path, refused) -> None:
    np.savez(tmp_path / "none.npz", images=np.zeros((0, 8, 8), np.uint8), z=np.zeros((0, 2)))
    for verb in ("encode", "score", "interpolate"):
        message = refused(verb, f"--workdir={runs['plain']}", f"--input={tmp_path / 'none.npz'}")
        assert "images have shape (0, 8, 8)" in message and "none.npz" in message
    source = ["--config.data.source=npz", f"--config.data.path={tmp_path / 'none.npz'}"]
    assert "images have shape (0, 8, 8)" in refused(f"--workdir={tmp_path / 'run'}", *TINY, *source)
    latents = f"--latents={tmp_path / 'none.npz'}"
    output = f"--output={tmp_path / 'out.png'}"
    assert "N at least 1" in refused("decode", f"--workdir={runs['plain']}", latents, output)


def test_folders_are_the_classes_of_pictures(runs, tmp_path: pathlib.Path, refused) -> None:
    rng = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    for name in ("3/a.png", "7/deep/b.png", "7/c.png"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 2, (8, 8), np.uint8) * 255).save(pictures / name)
    for name in ("told", "plain"):
        output = tmp_path / f"{name}.npz"
        main(["encode", f"--workdir={runs[name]}", f"--input={pictures}", f"--output={output}"])
        found = archive(output)
        assert found["names"].tolist() == ["3/a.png", "7/c.png", "7/deep/b.png"]
        assert found["labels"].tolist() == [3, 7, 7]
    # The same pixels with the labels in an archive.
    images = np.stack([np.asarray(Image.open(pictures / name)) for name in ("3/a.png", "7/c.png", "7/deep/b.png")])
    np.savez(tmp_path / "same.npz", images=images, labels=np.array([3, 7, 7]))
    output = tmp_path / "same_latents.npz"
    main(["encode", f"--workdir={runs['told']}", f"--input={tmp_path / 'same.npz'}", f"--output={output}"])
    np.testing.assert_allclose(archive(output)["mean"], archive(tmp_path / "told.npz")["mean"], atol=1e-6)
    output = tmp_path / "scores.csv"
    main(["score", f"--workdir={runs['told']}", f"--input={pictures}", f"--output={output}"])
    with output.open(newline="") as file:
        assert {(row["name"], row["class"]) for row in csv.DictReader(file)} == {
            *(("3/a.png", "3"), ("7/c.png", "7"), ("7/deep/b.png", "7"))
        }
    (pictures / "7").rename(pictures / "seven")
    message = refused("score", f"--workdir={runs['told']}", f"--input={pictures}")
    assert "after the classes (0, 1, 2" in message
    main(["encode", f"--workdir={runs['plain']}", f"--input={pictures}", f"--output={tmp_path / 'plain.npz'}"])
    assert "labels" not in archive(tmp_path / "plain.npz")


def test_what_is_written_goes_by_its_suffix(runs, tmp_path: pathlib.Path, refused) -> None:
    np.save(tmp_path / "z.npy", np.zeros((2, 2)))
    verbs = {
        **{"encode": ".npz", "score": ".csv", "interpolate": ".png", "sample": ".png", "reconstruct": ".png"},
        **{"report": ".html", "decode": ".png or .npz"},
    }
    for verb, suffix in verbs.items():
        more = [f"--latents={tmp_path / 'z.npy'}"] if verb == "decode" else []
        message = refused(verb, f"--workdir={runs['plain']}", f"--output={tmp_path / 'out.txt'}", *more)
        assert "out.txt" in message and f"must end in {suffix}\n" in message
    assert "must end in .json" in refused("benchmark", f"--output={tmp_path / 'out.txt'}")


def test_one_source_of_images_at_a_time(runs, tmp_path: pathlib.Path, refused) -> None:
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 8, 8), np.uint8))
    for verb in ("encode", "score", "interpolate"):
        given = [verb, f"--workdir={runs['plain']}", f"--input={tmp_path / 'one.npz'}"]
        assert "--input and --split" in refused(*given, "--split=test")
    assert "needs two images or more" in refused(*given)


def test_a_run_is_used_where_its_data_is_gone(tmp_path: pathlib.Path, refused) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=images)
    source = ["--config.data.source=npz", f"--config.data.path={tmp_path / 'mine.npz'}", "--config.train.batch_size=10"]
    run = tmp_path / "run"
    main([f"--workdir={run}", *TINY, *source])
    shutil.move(tmp_path / "mine.npz", tmp_path / "moved.npz")
    main(["encode", f"--workdir={run}", f"--input={tmp_path / 'moved.npz'}"])
    main(["sample", f"--workdir={run}"])
    assert archive(run / "latents_input.npz")["mean"].shape == (60, 10)
    for verb in ("encode", "evaluate", "reconstruct"):
        message = refused(verb, f"--workdir={run}")
        assert "not found" in message and f"change data.path in {run / 'config.json'}" in message
        assert "--config." not in message
    # Who does so has his run back.
    config = (run / "config.json").read_text()
    (run / "config.json").write_text(config.replace("mine.npz", "moved.npz"))
    main(["reconstruct", f"--workdir={run}"])


def test_what_lies_between(runs, tmp_path: pathlib.Path, refused) -> None:
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_allclose(between(first, last, 5, "linear"), np.linspace(first, last, 5), atol=1e-6)
    # Between unit vectors SciPy's rotations about their common normal take the same way.
    first, last = first / np.linalg.norm(first), last / np.linalg.norm(last)
    axis = np.cross(first, last)
    angle = np.arctan2(np.linalg.norm(axis), first @ last)
    turns = scipy.spatial.transform.Rotation.from_rotvec(
        np.linspace(0.0, angle, 5)[:, None] * axis / np.linalg.norm(axis)
    )
    np.testing.assert_allclose(between(first, last, 5, "spherical"), turns.apply(first), atol=1e-6)
    # Where there's no circle: opposite ends, an end in the middle, one point.
    for end in (-first, 0.0 * first, first):
        np.testing.assert_allclose(between(first, end, 3, "spherical"), np.linspace(first, end, 3), atol=1e-5)
    output = tmp_path / "between.png"
    main(["interpolate", f"--workdir={runs['plain']}", "--between=3,1,4", "--steps=5", f"--output={output}"])
    # Two rows: an original, seven decoded (both ends and five between), an original.
    assert size_of(output) == (9 * 57 + 1, 2 * 57 + 1)
    main(["interpolate", f"--workdir={runs['told']}", "--path=spherical", f"--output={output}"])
    assert "no image '9999'" in refused("interpolate", f"--workdir={runs['plain']}", "--between=0,9999")
    assert "needs two images" in refused("interpolate", f"--workdir={runs['plain']}", "--between=0")


def test_strangest_come_first(runs, tmp_path: pathlib.Path) -> None:
    output = tmp_path / "scores.csv"
    main(["score", f"--workdir={runs['plain']}", f"--output={output}", "--num_samples=200"])
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    log_likelihood = np.array([float(row["log_likelihood"]) for row in rows])
    assert np.all(np.diff(log_likelihood) >= 0) and len(rows) == 359
    assert (tmp_path / "scores_strangest.png").is_file()
    # With two latents p(x) can be summed up over a fine grid of z.
    trained = open_run(str(runs["plain"]))
    split = trained.data.for_evaluation("test")
    axis = np.linspace(-6.0, 6.0, 121)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    logits = np.asarray(decode_flat(trained.model, trained.variables, jnp.asarray(z, jnp.float32)).outputs, np.float64)
    logits = logits.reshape(len(z), -1)
    log_prior = scipy.stats.norm.logpdf(z).sum(axis=1)
    for row in rows[:5]:
        x = np.asarray(split.images[int(row["name"])], np.float64).ravel()
        log_joint = logits @ x + scipy.special.log_expit(-logits).sum(axis=1) + log_prior
        exact = scipy.special.logsumexp(log_joint) + 2 * np.log(axis[1] - axis[0])
        assert float(row["log_likelihood"]) == pytest.approx(exact, abs=max(0.05, 5 * float(row["standard_error"])))
        assert float(row["bits_per_dim"]) == pytest.approx(-float(row["log_likelihood"]) / 64 / np.log(2))


def test_what_the_data_set_has_not_is_stranger(runs, tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    digits = open_run(str(runs["plain"])).data.test_images[:20, ..., 0] * 15
    images = np.concatenate([digits, rng.integers(0, 2, (3, 8, 8)) * 255]).astype(np.uint8)
    np.savez(tmp_path / "mixed.npz", images=images)
    output = tmp_path / "scores.csv"
    main(["score", f"--workdir={runs['plain']}", f"--input={tmp_path / 'mixed.npz'}", f"--output={output}"])
    with output.open(newline="") as file:
        assert {row["name"] for row in list(csv.DictReader(file))[:3]} == {"20", "21", "22"}


def test_data_that_changed_its_form_is_refused(tmp_path_factory, tmp_path: pathlib.Path, refused) -> None:
    pictures, run = tmp_path_factory.mktemp("pictures"), tmp_path / "run"
    for number in range(12):
        Image.fromarray(np.full((4, 4), 20 * number, np.uint8)).save(pictures / f"{number:02}.png")
    data = ["--config.data.source=folder", f"--config.data.dir={pictures}", "--config.train.batch_size=4"]
    main([f"--workdir={run}", *TINY, *data])
    # Another first picture makes all of them coloured.
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(pictures / "00.png")
    reason = "its images were 4x4x1 with values to 255 and 0 classes, and are 4x4x3"
    for command in (["evaluate"], ["encode"], [*TINY, *data, "--config.train.num_steps=20"]):
        assert reason in refused(*command, f"--workdir={run}")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(pictures / "00.png")
    main([f"--workdir={run}", *TINY, *data, "--config.train.num_steps=20"])
