"""The verbs end to end on a tiny model: what they write, what they say, what they compile."""

import json
import logging
import math
import pathlib
import shutil
import struct
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image

from vae_jax.cli import main
from vae_jax.config import from_mapping
from vae_jax.models import decode_flat
from vae_jax.runs import checkpoints
from vae_jax.trained import open_run

REPOSITORY = pathlib.Path(__file__).parents[2]
TINY = [
    *("--config.model.network.hidden=(8,)", "--config.model.latents=2", "--config.train.num_steps=12"),
    *("--config.train.log_every=5", "--config.train.checkpoint_every=6", "--config.evaluate.num_samples=20"),
    "--config.train.report=False",
]
VERBS = ("train", "evaluate", "sample", "reconstruct")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, list[str]]:
    """The folder of a run, and all that was compiled for it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles(True):
            main([f"--workdir={folder}", *TINY])
    finally:
        logger.removeHandler(handler)
    return folder, [message for message in messages if message.startswith("Finished XLA compilation of")]


@pytest.fixture
def run(trained, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the run that a test may add to."""
    return pathlib.Path(shutil.copytree(trained[0], tmp_path / "run"))


def read_json(path: pathlib.Path) -> dict:
    # As strict readers take it: no NaN, no Infinity.
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{path} has {name}"))


def rows(run: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_training_compiles_its_steps_once(trained) -> None:
    compiled = [message for message in trained[1] if "jit(many_steps)" in message or "jit(train_step)" in message]
    assert len(compiled) == 1


def test_folder_has_every_file_and_no_leftovers(run: pathlib.Path) -> None:
    names = {path.name for path in run.iterdir()}
    files = {"config.json", "images.json", "manifest.json", "metrics.jsonl"}
    assert names == {*files, "tensorboard", "checkpoints", "images"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"6", "12"}
    assert not [path for path in run.rglob("*") if "unfinished" in path.name]


def test_config_comes_back(run: pathlib.Path) -> None:
    config = from_mapping(read_json(run / "config.json"))
    assert config.model.network == "mlp(hidden=(8,), activation=relu, dtype=float32)"
    assert (config.model.latents, config.train.num_steps) == (2, 12)
    assert (config.data.source, config.model.likelihood) == ("digits", "bernoulli")


def test_manifest_says_what_made_the_run(run: pathlib.Path) -> None:
    (start,) = read_json(run / "manifest.json")["starts"]
    assert start["versions"]["jax"] == jax.__version__
    assert len(start["devices"]) == 8 and start["data"]["name"] == "digits"
    assert len(start["data"]["fingerprint"]) == 16
    assert {"time", "command", "commit", "python"} <= set(start)


def test_metrics_have_a_row_per_point_that_adds_up(run: pathlib.Path) -> None:
    found = rows(run)
    assert [(row["step"], row["split"]) for row in found] == [
        *((5, "train"), (6, "train"), (6, "validation"), (6, "test")),
        *((10, "train"), (12, "train"), (12, "validation"), (12, "test")),
    ]
    for row in found:
        assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl"], rel=1e-5)
        assert row["epoch"] == pytest.approx(row["step"] / 21)
    for row in found[::4]:
        assert row["loss"] == pytest.approx(-row["elbo"]) and row["images_per_second"] > 0
    # 1797 digits, of which a fifth is for testing and a twentieth of the rest for validation.
    assert [row["num_images"] for row in found if "num_images" in row] == [72, 359, 72, 359]


def test_training_improves_the_bound(run: pathlib.Path) -> None:
    first, last = (row["elbo"] for row in rows(run) if row["split"] == "test")
    # 64 fair coins, about which an untrained model knows nothing, have 44.4 nats.
    assert -64 * math.log(2) - 5 < first < last < 0


def test_event_files_hold_the_same_numbers(run: pathlib.Path) -> None:
    (path,) = (run / "tensorboard").iterdir()
    content, tags, start = path.read_bytes(), set(), 0
    while start < len(content):
        # TFRecord: length, its checksum, the event, its checksum.
        (length,) = struct.unpack_from("<Q", content, start)
        event = content[start + 12 : start + 12 + length]
        tags |= {name for name in (b"train/elbo", b"validation/elbo", b"test/kl", b"train/loss") if name in event}
        start += 16 + length
    assert start == len(content) and len(tags) == 4


@pytest.mark.parametrize("name", ["samples_mean_0000006", "samples_mean_0000012", "reconstructions_mean_0000012"])
def test_pictures_open_and_show_something(run: pathlib.Path, name: str) -> None:
    with Image.open(run / "images" / f"{name}.png") as image:
        assert (image.format, image.size) == ("PNG", (8 * 57 + 1, 8 * 57 + 1))
        assert len(np.unique(image)) > 20


def test_checkpoints_are_scored_by_the_validation_bound(run: pathlib.Path) -> None:
    scores = {checkpoint.step: checkpoint.score for checkpoint in checkpoints.listing(run / "checkpoints")}
    assert scores == {row["step"]: row["elbo"] for row in rows(run) if row["split"] == "validation"}


def test_finished_run_is_not_changed(run: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "manifest.json"}
    main([f"--workdir={run}", *TINY])
    assert f"{run} is finished: it has 12 of 12 steps" in capsys.readouterr().out
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "manifest.json"}
    assert after == before


def test_evaluation_adds_up(run: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    main(["evaluate", f"--workdir={run}"])
    result = read_json(run / "evaluation.json")
    assert (result["split"], result["step"], result["num_images"], result["num_samples"]) == ("test", 12, 359, 20)
    assert (result["unit"], result["measure"]) == ("nats per image", "binary")
    elbo, log_likelihood = result["elbo"], result["log_likelihood"]
    assert elbo["mean"] == pytest.approx(result["reconstruction"] - result["kl"], rel=1e-5)
    assert elbo["mean"] <= log_likelihood["mean"] < 0
    bits = result["bits_per_dim"]
    for name in ("standard_error_images", "standard_error_estimator"):
        assert log_likelihood[name] > 0
        assert bits[name] == pytest.approx(log_likelihood[name] / (64 * math.log(2)))
    assert bits["mean"] == pytest.approx(-log_likelihood["mean"] / (64 * math.log(2)))
    assert 1 <= result["effective_sample_size"]["minimum"] <= result["effective_sample_size"]["mean"] <= 20
    # Training and evaluation measure the same bound on the same images.
    (measured,) = (row for row in rows(run) if (row["step"], row["split"]) == (12, "test"))
    assert measured["kl"] == pytest.approx(result["kl"], rel=1e-4)
    assert measured["elbo"] == pytest.approx(elbo["mean"], abs=0.3)
    assert "log p(x)" in capsys.readouterr().out


def test_evaluation_of_a_split_and_checkpoint(run: pathlib.Path) -> None:
    settings = ["--split=validation", "--checkpoint=6", "--num_samples=3", "--num_images=10", "--memory_mb=1"]
    main(["evaluate", f"--workdir={run}", *settings])
    result = read_json(run / "evaluation_validation.json")
    assert (result["split"], result["step"], result["num_images"], result["num_samples"]) == ("validation", 6, 10, 3)


def test_best_checkpoint_is_the_one_with_the_highest_score(run: pathlib.Path) -> None:
    path = run / "checkpoints" / "6" / "checkpoint.json"
    record = json.loads(path.read_text()) | {"score": 0.0}
    record.pop("digest", None)
    path.write_text(json.dumps(record))
    main(["evaluate", f"--workdir={run}", "--checkpoint=best", "--num_images=5"])
    assert read_json(run / "evaluation.json")["step"] == 6


def test_one_image_and_one_sample_tell_no_errors(run: pathlib.Path) -> None:
    main(["evaluate", f"--workdir={run}", "--num_samples=1", "--num_images=1"])
    result = read_json(run / "evaluation.json")
    for name in ("elbo", "log_likelihood", "bits_per_dim"):
        assert result[name]["standard_error_images"] is None
        assert result[name]["standard_error_estimator"] is None


@pytest.mark.long
def test_samples_follow_from_their_seed(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def drawn(name: str, *arguments: str) -> bytes:
        main(["sample", f"--workdir={run}", f"--output={tmp_path / name}.png", "--num_images=9", *arguments])
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size == (8 * 57 + 1, 2 * 57 + 1)
            return image.tobytes()

    assert drawn("one") == drawn("again")
    assert drawn("one") != drawn("other", "--seed=1")
    assert drawn("binary", "--show=sample") != drawn("one")


@pytest.mark.long
def test_manifold_is_the_decoder_at_the_quantiles_of_the_prior(run: pathlib.Path) -> None:
    main(["sample", f"--workdir={run}", "--manifold", "--num_images=9"])
    trained = open_run(str(run))
    # Second row, third column: the median up, the highest sixth to the right.
    z = jnp.array([[scipy.stats.norm.ppf(5 / 6), 0.0]])
    expected = np.round(255 * np.asarray(decode_flat(trained.model, trained.variables, z).mean()))[0, ..., 0]
    with Image.open(run / "images" / "manifold_mean_step12.png") as image:
        assert image.size == (3 * 57 + 1, 3 * 57 + 1)
        shown = np.asarray(image)[1 + 57 : 57 + 57 : 7, 1 + 2 * 57 : 57 + 2 * 57 : 7]
    np.testing.assert_allclose(shown, expected, atol=1)


def test_drawn_samples_are_binary_and_probabilities_are_not(run: pathlib.Path) -> None:
    for show in ("mean", "sample"):
        main(["sample", f"--workdir={run}", f"--show={show}"])
        with Image.open(run / "images" / f"samples_{show}_step12.png") as image:
            levels = set(np.unique(image))
        # 128 is the grey of the gaps.
        assert (levels == {0, 128, 255}) == (show == "sample")


def test_reconstructions_stand_beside_the_originals(run: pathlib.Path) -> None:
    main(["reconstruct", f"--workdir={run}", "--split=train", "--num_images=4"])
    with Image.open(run / "images" / "reconstructions_train_mean_step12.png") as image:
        picture = np.asarray(image)
    assert picture.shape == (58, 8 * 57 + 1)
    originals = [picture[1:57, 1 + 57 * column : 57 + 57 * column] for column in (0, 2, 4, 6)]
    assert all(set(np.unique(original)) == {0, 255} for original in originals)
    assert len(np.unique(picture[1:57, 58:114])) > 20


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_explains(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    main(arguments)
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("usage:") and "--workdir" in out
    wanted = {
        "--help": [*VERBS, "examples:", "--help"],
        "train": ["--init_from", "model.latents"],
        "evaluate": ["--split", "--checkpoint", "--num_samples"],
        "sample": ["--seed", "--show", "--num_images"],
        "reconstruct": ["--split", "--output"],
    }
    assert [word for word in wanted[arguments[0]] if word not in out] == []


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections calls it
def test_config_file_and_overrides_are_joined(tmp_path: pathlib.Path) -> None:
    file, folder = REPOSITORY / "configs" / "digits.py", tmp_path / "run"
    few = ["--config.train.num_steps=1", "--config.model.network.hidden=(4,)", "--config.train.learning_rate=0.5"]
    few.append("--config.train.report=False")
    main(["train", f"--config={file}", f"--workdir={folder}", *few])
    config = from_mapping(read_json(folder / "config.json"))
    assert (config.train.num_steps, config.train.learning_rate) == (1, 0.5)
    assert config.model.network.startswith("mlp(hidden=(4,), ") and config.data.source == "digits"


@pytest.mark.long
def test_ones_own_images_train(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 7, 3), np.uint8)
    np.savez(tmp_path / "mine.npz", images=images)
    arguments = [
        *("--config.data.source=npz", f"--config.data.path={tmp_path / 'mine.npz'}", "--config.data.binarization=none"),
        *(
            "--config.model.likelihood=gaussian(learned=True)",
            "--config.model.network.hidden=()",
            "--config.model.latents=2",
        ),
        *("--config.train.num_steps=2", "--config.train.batch_size=8", "--config.train.report=False"),
    ]
    main([f"--workdir={tmp_path / 'run'}", *arguments])
    line = "mine: 30 train, 2 validation and 8 test images of 5x7x3 pixels, no classes\n"
    assert capsys.readouterr().out.startswith(line)
    main(["evaluate", f"--workdir={tmp_path / 'run'}", "--num_samples=4"])
    result = read_json(tmp_path / "run" / "evaluation.json")
    assert (result["num_images"], result["measure"]) == (8, "continuous")
    with Image.open(tmp_path / "run" / "images" / "samples_mean_0000002.png") as image:
        assert image.mode == "RGB"


@pytest.mark.long
def test_nothing_imports_tensorflow() -> None:
    script = (
        "import importlib, pkgutil, sys, vae_jax, vae_jax.cli;"
        "assert not {'jax', 'tensorflow'} & set(sys.modules), 'the command line starts without them';"
        "[importlib.import_module(module.name) for module in pkgutil.walk_packages(vae_jax.__path__, 'vae_jax.')];"
        "print(*sorted({'tensorflow', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)
    assert answer.stdout.strip() == ""
