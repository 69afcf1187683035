"""No damage to a file of a run passes unseen, and training goes back to what is sound."""

import json
import logging
import pathlib
import shutil
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from harms import HARMS, flipped, some_manual

from vae_jax.cli import main
from vae_jax.data import cache
from vae_jax.errors import UserError
from vae_jax.runs import RunFolder, checkpoints, read_rows

EARLIER_VERSION = pathlib.Path(__file__).parents[1] / "fixtures" / "earlier_version"
pytestmark = pytest.mark.usefixtures("remembered")
TINY = ["--config.model.network.hidden=(4,)", "--config.model.latents=2", "--config.train.report=False"]
STEPS = [*TINY, "--config.train.num_steps=6", "--config.train.checkpoint_every=2", "--config.train.log_every=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run of three checkpoints."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    main([f"--workdir={workdir}", *STEPS])
    return workdir


@pytest.fixture
def copy(run: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of it that a test may harm."""
    return pathlib.Path(shutil.copytree(run, tmp_path / "run"))


def harmed(run: pathlib.Path, harm: str, tmp_path: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """Copies of a run, each with another file of its newest checkpoint harmed, and that file's name."""
    newest = checkpoints.choose(run / "checkpoints", "latest").folder
    files = sorted(path.relative_to(run) for path in newest.rglob("*") if path.is_file())
    assert len(files) > 8
    for number, name in enumerate(files):
        copy = pathlib.Path(shutil.copytree(run, tmp_path / str(number)))
        HARMS[harm](copy / name)
        yield copy, name.name


@pytest.mark.long
@pytest.mark.parametrize("harm", HARMS)
def test_no_file_of_a_checkpoint_is_damaged_unseen(run: pathlib.Path, harm: str, tmp_path: pathlib.Path) -> None:
    for copy, name in harmed(run, harm, tmp_path):
        with pytest.raises(UserError, match="is damaged") as refused:
            checkpoints.load(checkpoints.choose(copy / "checkpoints", "latest"))
        assert name in str(refused.value) and "\n" not in str(refused.value)
        sound, wrong = checkpoints.newest_sound(copy / "checkpoints")
        assert sound is not None and sound.step == 4
        assert list(wrong) == [copy / "checkpoints" / "6"] and name in wrong[copy / "checkpoints" / "6"]


def test_record_of_another_step_is_damaged(copy: pathlib.Path) -> None:
    shutil.copy(copy / "checkpoints" / "4" / "checkpoint.json", copy / "checkpoints" / "6" / "checkpoint.json")
    assert "is that of step 4" in checkpoints.unreadable(copy / "checkpoints")[copy / "checkpoints" / "6"]


def test_a_file_that_was_added_is_no_part_of_a_checkpoint(copy: pathlib.Path) -> None:
    newest = checkpoints.choose(copy / "checkpoints", "latest")
    (newest.folder / "state" / "d" / ".DS_Store").write_bytes(b"left by a file manager")
    checkpoints.load(newest)
    (newest.folder / "state" / "d" / "more").write_bytes(b"more")
    with pytest.raises(UserError, match="d/more doesn't belong to it"):
        checkpoints.load(newest)


@pytest.mark.parametrize("name", some_manual(["checkpoint.json", "state/_METADATA"], quick=["state/_METADATA"]))
def test_training_goes_back_and_says_so(
    copy: pathlib.Path, run: pathlib.Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    HARMS["flip"](copy / "checkpoints" / "6" / name)
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", f"--workdir={copy}"])
    errors = capsys.readouterr().err
    assert caught.value.code == 2
    assert errors.startswith("vae-jax: error: checkpoint") and errors.count("\n") == 1 and "is damaged" in errors
    main([f"--workdir={copy}", *STEPS])
    said = capsys.readouterr().out
    assert f"checkpoint {copy / 'checkpoints' / '6'} is damaged" in said and "training continues from step 4" in said
    one, other = (checkpoints.load(checkpoints.choose(each / "checkpoints", "latest")) for each in (copy, run))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), one, other))


def test_training_starts_anew_where_nothing_is_sound(copy: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    for record in copy.glob("checkpoints/*/checkpoint.json"):
        HARMS["empty"](record)
    with pytest.raises(SystemExit):
        main(["sample", f"--workdir={copy}"])
    assert "is damaged: checkpoint.json can't be read" in capsys.readouterr().err
    main([f"--workdir={copy}", *TINY, "--config.train.num_steps=1"])
    said = capsys.readouterr().out
    assert said.count("training starts anew") == 3
    assert [path.name for path in (copy / "checkpoints").iterdir()] == ["1"]


def test_damaged_later_checkpoints_push_no_sound_one_out(tmp_path: pathlib.Path) -> None:
    """With another interval between checkpoints than before, those of later steps are not replaced one by one."""
    state = {"w": jnp.arange(3.0)}
    for step in (50, 100, 110):
        checkpoints.save(tmp_path, step, state, None, keep=3)
    for step in (100, 110):
        HARMS["flip"](tmp_path / str(step) / "state" / "_METADATA")
    assert checkpoints.newest_sound(tmp_path)[0] == checkpoints.choose(tmp_path, "50")
    checkpoints.save(tmp_path, 60, state, None, keep=1)
    assert [checkpoint.step for checkpoint in checkpoints.listing(tmp_path)] == [60]
    assert checkpoints.newest_sound(tmp_path)[1] == {}


def test_best_one_is_unknown_while_a_record_is_damaged(copy: pathlib.Path) -> None:
    HARMS["flip"](copy / "checkpoints" / "2" / "checkpoint.json")
    assert checkpoints.choose(copy / "checkpoints", "latest").step == 6
    for which in ("best", "2"):
        with pytest.raises(UserError, match="2 is damaged"):
            checkpoints.choose(copy / "checkpoints", which)


@pytest.mark.long
@pytest.mark.smoke
def test_run_of_an_earlier_version_goes_on(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    workdir = pathlib.Path(shutil.copytree(EARLIER_VERSION, tmp_path / "first"))
    recorded = next(row for row in read_rows(workdir / "metrics.jsonl") if row["split"] == "test" and row["step"] == 20)
    main(["evaluate", f"--workdir={workdir}", "--num_samples=50"])
    elbo = json.loads((workdir / "evaluation.json").read_text())["elbo"]
    # The same bound of the same images; one sample an image then, 50 now.
    assert elbo["mean"] == pytest.approx(recorded["elbo"], abs=recorded["elbo_standard_error"])
    capsys.readouterr()
    written = ["--config.train.checkpoint_every=10", "--config.train.log_every=5", "--config.train.ema_decay=0.9"]
    main([f"--workdir={workdir}", *TINY, *written, "--config.train.num_steps=25"])
    captured = capsys.readouterr()
    assert "at step 20 of 25" in captured.out and "damaged" not in captured.out and captured.err == ""
    steps = [row["step"] for row in read_rows(workdir / "metrics.jsonl") if row["split"] == "train"]
    assert steps == [5, 10, 15, 20, 25]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("name", ["config.json", "images.json"])
def test_damaged_description_of_a_model(
    copy: pathlib.Path, name: str, harm: str, capsys: pytest.CaptureFixture
) -> None:
    """It is refused, or made up for by the data."""
    HARMS[harm](copy / name)
    try:
        main(["sample", f"--workdir={copy}", "--num_images=1"])
    except SystemExit as refused:
        assert refused.code == 2 and capsys.readouterr().err.count("\n") == 1
    else:
        assert (name, harm) == ("images.json", "delete")


def test_name_in_a_config_that_is_damaged_is_no_mistake_of_the_user(copy: pathlib.Path) -> None:
    config = copy / "config.json"
    config.write_bytes(config.read_bytes().replace(b'"num_steps"', b'"num_wteps"'))
    with pytest.raises(UserError, match=r"config\.json is damaged.*'train\.num_wteps'"):
        RunFolder(copy).read_config()


def test_manifest_of_zeros_is_no_json(copy: pathlib.Path) -> None:
    # So many zeros would be taken for text in UTF-32.
    (copy / "manifest.json").write_bytes(bytes(1126))
    with pytest.raises(UserError, match=r"manifest\.json can't be read \(not JSON: "):
        RunFolder(copy).last_start()


@pytest.mark.parametrize("harm", some_manual(["truncate", "empty", "zero"], quick=["truncate"]))
def test_damaged_manifest_is_refused_by_training(copy: pathlib.Path, harm: str, capsys: pytest.CaptureFixture) -> None:
    HARMS[harm](copy / "manifest.json")
    with pytest.raises(SystemExit) as caught:
        main([f"--workdir={copy}", *STEPS])
    errors = capsys.readouterr().err
    assert caught.value.code == 2 and "manifest.json can't be read" in errors and errors.count("\n") == 1


@pytest.mark.parametrize("harm", some_manual([harm for harm in HARMS if harm != "flip"], quick=["truncate"]))
def test_damaged_metrics_are_told_and_training_goes_on(
    copy: pathlib.Path, harm: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    before = read_rows(copy / "metrics.jsonl")
    HARMS[harm](copy / "metrics.jsonl")
    main([f"--workdir={copy}", *STEPS, "--config.train.num_steps=7"])
    told = caplog.text + capsys.readouterr().err
    assert "metrics.jsonl" in told and ("damaged" in told or "are lost" in told)
    after = read_rows(copy / "metrics.jsonl")
    assert [row for row in after if row["step"] <= 6] == [row for row in before if row in after]
    assert after[-1]["step"] == 7


def json_of(content: bytes) -> object:
    try:
        return json.loads(content.decode())
    except ValueError:
        return content


ROW = b'{"step": 1, "epoch": 0.1, "split": "train", "elbo": -3.0, "reconstruction": -2.0, "kl": 1.0}'


@pytest.mark.parametrize("line", [b"1", b"[]", b"null", b'"step"', b"{}", b'{"step": 1}', ROW.replace(b"1,", b'"1",')])
def test_line_that_is_no_row(tmp_path: pathlib.Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([ROW, line, ROW, b""]))
    assert read_rows(tmp_path / "metrics.jsonl") == [json.loads(ROW)] * 2
    assert "its lines 2" in caplog.text


def test_line_that_was_cut_off_in_writing_is_nothing_to_tell(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(ROW + b"\n" + ROW[:15])
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 1 and not caplog.records


def test_every_byte_of_decoded_data_counts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 1), np.uint8)
    cache.save("key", {"images": images})
    for victim in sorted((cache.cache_folder() / "key").iterdir()):
        original = victim.read_bytes()
        for content in flipped(original):
            victim.write_bytes(content)
            loaded = cache.load("key", ["images"])
            if loaded is not None:
                np.testing.assert_array_equal(loaded[0]["images"], images, strict=True)
        victim.write_bytes(original)
    assert cache.load("key", ["images"]) is not None
