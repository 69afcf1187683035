"""Verbs that take images or latents and give others: encode, decode, interpolate, score."""

import csv
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.transform
import scipy.special
import scipy.stats
from PIL import Image
from tiny_runs import train

from vae_jax.cli import main
from vae_jax.cli.interpolate import between
from vae_jax.data import ImageKind
from vae_jax.data.user_images import read_images
from vae_jax.models import Batch, decode_flat, flat_point
from vae_jax.trained import open_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Models of the digits: a plain one, one that is told the class, one with a flow."""
    folder = tmp_path_factory.mktemp("runs")
    settings = {
        "plain": ["--config.train.num_steps=300", "--config.train.checkpoint_every=300"],
        "told": ["--config.model.latents=3", "--config.model.conditional=True"],
        "flow": ["--config.model.posterior=iaf(flows=1, hidden=(8,))"],
    }
    return {name: train(folder / name, *more) for name, more in settings.items()}


def archive(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def table(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
@pytest.mark.parametrize("name", ["plain", "told", "flow"])
def test_a_split_is_encoded_and_decoded(name: str, runs, tmp_path: pathlib.Path) -> None:
    latents, images, run = tmp_path / "latents.npz", tmp_path / "images.npz", f"--workdir={runs[name]}"
    main(["encode", run, f"--output={latents}"])
    main(["decode", run, f"--latents={latents}", f"--output={images}"])
    found, trained = archive(latents), open_run(str(runs[name]))
    split = trained.data.for_evaluation("test")
    label = jnp.asarray(split.labels) if trained.model.context_size else None
    batch = Batch(jnp.asarray(split.images, jnp.float32), context=label)  # binary already
    np.testing.assert_allclose(found["mean"], flat_point(trained.model, trained.variables, batch), atol=1e-5)
    np.testing.assert_array_equal(found["labels"], split.labels)
    assert found["names"].tolist() == [str(number) for number in range(len(split.images))]
    # Of a flow's q(z|x) no variances are known.
    assert ("logvar" in found) == (name != "flow")
    if name != "flow":
        logvar = trained.model.encode(trained.variables, batch).logvar
        np.testing.assert_allclose(found["logvar"], logvar, atol=1e-5)
    logits = decode_flat(trained.model, trained.variables, jnp.asarray(found["mean"]), label).outputs
    expected = 255.0 * scipy.special.expit(np.asarray(logits, np.float64))
    assert np.abs(archive(images)["images"] - expected).max() <= 0.51


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


def test_a_folder_of_pictures_is_encoded(
    finished: pathlib.Path, pictures: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    main(["encode", f"--workdir={finished}", f"--input={pictures}", f"--output={tmp_path / 'latents.npz'}"])
    assert archive(tmp_path / "latents.npz")["names"].tolist() == ["a.png", "below/b.webp", "below/c.png", "d.png"]
    errors = capsys.readouterr().err
    assert "f.jpg" in errors and "g.png" in errors and "2 of 6 files are left out" in errors
    assert "e.txt" not in errors


def test_pictures_are_brought_to_the_form_of_the_models(pictures: pathlib.Path) -> None:
    found, _ = read_images(str(pictures), ImageKind((8, 8, 1), 16, 10))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    with Image.open(pictures / "below" / "c.png") as large:
        resized = np.asarray(large.resize((8, 8), Image.Resampling.BILINEAR))
    for image, expected in zip(np.asarray(found.split.images), (pixels, pixels, resized, pixels), strict=True):
        np.testing.assert_array_equal(image[..., 0], expected)
    colours, _ = read_images(str(pictures / "a.png"), ImageKind((8, 8, 3), 255, 0))
    np.testing.assert_array_equal(np.asarray(colours.split.images)[0], np.repeat(pixels[..., None], 3, axis=-1))


@pytest.mark.long
def test_folders_are_the_classes_of_pictures(runs, tmp_path: pathlib.Path, refused) -> None:
    rng, pictures, told = np.random.default_rng(0), tmp_path / "pictures", f"--workdir={runs['told']}"
    names = ["3/a.png", "7/c.png", "7/deep/b.png"]
    for name in names:
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(pictures / name)
    main(["score", told, f"--input={pictures}", f"--output={tmp_path / 'scores.csv'}"])
    assert {row["name"]: row["class"] for row in table(tmp_path / "scores.csv")} == dict(zip(names, "377", strict=True))
    np.savez(tmp_path / "unlabelled.npz", images=np.zeros((2, 8, 8), np.uint8))
    message = refused("encode", told, f"--input={tmp_path / 'unlabelled.npz'}")
    assert "these images have no labels" in message and "an .npz with images and labels" in message
    np.save(tmp_path / "z.npy", np.zeros((5, 3)))
    assert "add --label=CLASS" in refused("decode", told, f"--latents={tmp_path / 'z.npy'}")
    (pictures / "7").rename(pictures / "seven")
    assert "after the classes (0, 1, 2" in refused("score", told, f"--input={pictures}")


def test_what_lies_between() -> None:
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


@pytest.mark.long
def test_pictures_of_latents_stand_in_rows(runs, tmp_path: pathlib.Path) -> None:
    def size(*arguments: str) -> tuple[int, int]:
        main([*arguments, f"--output={tmp_path / 'out.png'}"])
        with Image.open(tmp_path / "out.png") as image:
            return image.size

    plain = f"--workdir={runs['plain']}"
    # Two rows: an original, seven decoded (both ends and five between), an original.
    assert size("interpolate", plain, "--between=3,1,4", "--steps=5") == (9 * 57 + 1, 2 * 57 + 1)
    assert size("interpolate", f"--workdir={runs['told']}", "--path=spherical")[0] > 0
    np.save(tmp_path / "z.npy", np.zeros((5, 2), ">i8"))
    assert size("decode", plain, f"--latents={tmp_path / 'z.npy'}") == (5 * 57 + 1, 58)


@pytest.mark.long
def test_the_strangest_come_first(runs, tmp_path: pathlib.Path) -> None:
    output, run = tmp_path / "scores.csv", f"--workdir={runs['plain']}"
    main(["score", run, f"--output={output}", "--num_samples=200"])
    rows = table(output)
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
