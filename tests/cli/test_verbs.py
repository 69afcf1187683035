"""Training and the verbs on one tiny run: what they write, what they say, what they compile."""

import logging
import math
import pathlib
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
from on_disk import contents
from PIL import Image
from tiny_runs import TINY, read_json, rows, train

from vae_jax.cli import flags, main
from vae_jax.cli import train as verb
from vae_jax.config import from_mapping
from vae_jax.runs import checkpoints

REPOSITORY = pathlib.Path(__file__).parents[2]


def test_quiet_training_compiles_its_steps_once(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "jax")
    with jax.log_compiles(True):
        train(tmp_path / "run", "--quiet")
    # The result is all that is printed.
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("12 steps in ")
    compiled = [record.getMessage() for record in caplog.records if "Finished XLA compilation" in record.getMessage()]
    assert len([line for line in compiled if "jit(many_steps)" in line or "jit(train_step)" in line]) == 1


def test_the_folder_of_a_run_says_what_made_it(finished: pathlib.Path) -> None:
    files = {"config.json", "images.json", "manifest.json", "metrics.jsonl"}
    assert {path.name for path in finished.iterdir()} == {*files, "tensorboard", "checkpoints", "images"}
    assert not [path for path in finished.rglob("*") if "unfinished" in path.name]
    config = from_mapping(read_json(finished / "config.json"))
    assert config.model.network == "mlp(hidden=(8,), activation=relu, dtype=float32)"
    assert (config.model.latents, config.train.num_steps, config.data.source) == (2, 12, "digits")
    (start,) = read_json(finished / "manifest.json")["starts"]
    assert start["versions"]["jax"] == jax.__version__ and len(start["devices"]) == 8
    assert start["data"]["name"] == "digits" and len(start["data"]["fingerprint"]) == 16
    assert {"time", "command", "commit", "python"} <= set(start)


def test_metrics_have_a_row_per_point_that_adds_up(finished: pathlib.Path) -> None:
    found = rows(finished)
    assert [(row["step"], row["split"]) for row in found] == [
        *((5, "train"), (6, "train"), (6, "validation"), (6, "test")),
        *((10, "train"), (12, "train"), (12, "validation"), (12, "test")),
    ]
    for row in found:
        assert row["elbo"] == pytest.approx(row["reconstruction"] - row["kl"], rel=1e-5)
        assert row["epoch"] == pytest.approx(row["step"] / 21)
    assert all(row["loss"] == pytest.approx(-row["elbo"]) for row in found[::4])
    # 1797 digits, of which a fifth is for testing and a twentieth of the rest for validation.
    assert [row["num_images"] for row in found if "num_images" in row] == [72, 359, 72, 359]
    first, last = (row["elbo"] for row in found if row["split"] == "test")
    # 64 fair coins, about which an untrained model knows nothing, have 44.4 nats.
    assert -64 * math.log(2) - 5 < first < last < 0
    scores = {checkpoint.step: checkpoint.score for checkpoint in checkpoints.listing(finished / "checkpoints")}
    assert scores == {row["step"]: row["elbo"] for row in found if row["split"] == "validation"}


def test_event_files_hold_the_same_numbers(finished: pathlib.Path) -> None:
    (path,) = (finished / "tensorboard").iterdir()
    content, tags, start = path.read_bytes(), set(), 0
    while start < len(content):
        # TFRecord: length, its checksum, the event, its checksum.
        (length,) = struct.unpack_from("<Q", content, start)
        event = content[start + 12 : start + 12 + length]
        tags |= {name for name in (b"train/elbo", b"validation/elbo", b"test/kl", b"train/loss") if name in event}
        start += 16 + length
    assert start == len(content) and len(tags) == 4


def test_a_finished_run_is_not_changed(run: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    (run / "manifest.json").unlink()
    before = contents(run)
    main([f"--workdir={run}", *TINY])
    assert f"{run} is finished: it has 12 of 12 steps" in capsys.readouterr().out
    (run / "manifest.json").unlink(missing_ok=True)
    assert contents(run) == before


def test_evaluation_adds_up(run: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    main(["evaluate", f"--workdir={run}"])
    result = read_json(run / "evaluation.json")
    assert (result["split"], result["step"], result["num_images"], result["num_samples"]) == ("test", 12, 359, 20)
    assert (result["unit"], result["measure"]) == ("nats per image", "binary")
    elbo, log_likelihood, bits = result["elbo"], result["log_likelihood"], result["bits_per_dim"]
    assert elbo["mean"] == pytest.approx(result["reconstruction"] - result["kl"], rel=1e-5)
    assert elbo["mean"] <= log_likelihood["mean"] < 0
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


@pytest.mark.long
def test_split_checkpoint_and_counts_are_chosen(run: pathlib.Path) -> None:
    settings = ["--split=validation", "--checkpoint=6", "--num_samples=1", "--num_images=1", "--memory_mb=1"]
    main(["evaluate", f"--workdir={run}", *settings])
    result = read_json(run / "evaluation_validation.json")
    assert (result["split"], result["step"], result["num_images"], result["num_samples"]) == ("validation", 6, 1, 1)
    # One image and one sample tell no errors.
    for name in ("elbo", "log_likelihood", "bits_per_dim"):
        assert result[name]["standard_error_images"] is result[name]["standard_error_estimator"] is None
    folder = run / "checkpoints"
    checkpoints.save(folder, 6, checkpoints.load(checkpoints.choose(folder, "6")), 0.0, keep=9)
    main(["evaluate", f"--workdir={run}", "--checkpoint=best", "--num_images=5"])
    assert read_json(run / "evaluation.json")["step"] == 6


@pytest.mark.long
def test_samples_follow_from_their_seed(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def drawn(name: str, *arguments: str) -> np.ndarray:
        main(["sample", f"--workdir={run}", f"--output={tmp_path / name}.png", "--num_images=9", *arguments])
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.size == (8 * 57 + 1, 2 * 57 + 1)
            return np.asarray(image)

    one = drawn("one")
    assert np.array_equal(one, drawn("again")) and not np.array_equal(one, drawn("other", "--seed=1"))
    # 128 is the grey of the gaps.
    assert set(np.unique(drawn("binary", "--show=sample"))) == {0, 128, 255} != set(np.unique(one))


def test_reconstructions_stand_beside_the_originals(run: pathlib.Path) -> None:
    main(["reconstruct", f"--workdir={run}", "--split=train", "--num_images=4"])
    with Image.open(run / "images" / "reconstructions_train_mean_step12.png") as image:
        picture = np.asarray(image)
    assert picture.shape == (58, 8 * 57 + 1)
    originals = [picture[1:57, 1 + 57 * column : 57 + 57 * column] for column in (0, 2, 4, 6)]
    assert all(set(np.unique(original)) == {0, 255} for original in originals)
    assert len(np.unique(picture[1:57, 58:114])) > 20
    with Image.open(run / "images" / "samples_mean_0000006.png") as image:
        assert image.size == (8 * 57 + 1, 8 * 57 + 1) and len(np.unique(image)) > 20


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("--help", ["train", "evaluate", "sample", "reconstruct", "examples:"]),
        ("train --help", ["--init_from", "model.latents"]),
        ("sample --help", ["--seed", "--show", "--num_images", "--checkpoint"]),
    ],
)
def test_help_explains(arguments: str, wanted: list[str], capsys: pytest.CaptureFixture) -> None:
    main(arguments.split())
    out, err = capsys.readouterr()
    assert err == "" and out.startswith("usage:") and [word for word in wanted if word not in out] == []


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections calls it
def test_a_config_file_and_flags_are_joined() -> None:
    given = [f"--config={REPOSITORY / 'configs' / 'digits.py'}", "--config.train.num_steps=7"]
    config = flags.read_config(flags.parse(verb, given))
    assert (config.data.source, config.train.num_steps) == ("digits", 7)


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
