"""No damage to a file of a run passes unseen, and training goes back to what is sound."""

import json
import pathlib
import shutil

import jax.numpy as jnp
import pytest
from harms import HARMS, harm
from tiny_runs import MODEL, TINY, bits, read_json

from vae_jax.cli import main
from vae_jax.errors import UserError
from vae_jax.runs import RunFolder, checkpoints, read_rows

EARLIER_VERSION = pathlib.Path(__file__).parents[1] / "fixtures" / "earlier_version"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Checkpoints of steps 50, 100 and 110."""
    folder = tmp_path_factory.mktemp("saved")
    for step in (50, 100, 110):
        checkpoints.save(folder, step, {"w": jnp.arange(3.0)}, None, keep=3)
    return folder


@pytest.fixture
def copy(saved: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.mark.long
@pytest.mark.parametrize("how", HARMS)
def test_no_file_of_a_checkpoint_is_damaged_unseen(how: str, saved: pathlib.Path, tmp_path: pathlib.Path) -> None:
    files = sorted(path.relative_to(saved) for path in (saved / "110").rglob("*") if path.is_file())
    assert len(files) > 8
    for number, name in enumerate(files):
        copy = pathlib.Path(shutil.copytree(saved, tmp_path / str(number)))
        harm(copy / name, how)
        with pytest.raises(UserError, match="is damaged") as refused:
            checkpoints.load(checkpoints.choose(copy, "latest"))
        assert name.name in str(refused.value) and "\n" not in str(refused.value)
        sound, wrong = checkpoints.newest_sound(copy)
        assert sound is not None and sound.step == 100
        assert list(wrong) == [copy / "110"] and name.name in wrong[copy / "110"]


def test_a_record_of_another_step_is_damaged(copy: pathlib.Path) -> None:
    shutil.copy(copy / "100" / "checkpoint.json", copy / "110" / "checkpoint.json")
    assert "is that of step 100" in checkpoints.unreadable(copy)[copy / "110"]


def test_a_file_that_was_added_is_no_part_of_a_checkpoint(copy: pathlib.Path) -> None:
    newest = checkpoints.choose(copy, "latest")
    (newest.folder / "state" / "d" / ".DS_Store").write_bytes(b"left by a file manager")
    checkpoints.load(newest)
    (newest.folder / "state" / "d" / "more").write_bytes(b"more")
    with pytest.raises(UserError, match="d/more doesn't belong to it"):
        checkpoints.load(newest)


def test_damaged_later_checkpoints_push_no_sound_one_out(copy: pathlib.Path) -> None:
    """With another interval between checkpoints than before, those of later steps are not replaced one by one."""
    for step in (100, 110):
        harm(copy / str(step) / "state" / "_METADATA")
    assert checkpoints.newest_sound(copy)[0] == checkpoints.choose(copy, "50")
    checkpoints.save(copy, 60, {"w": jnp.arange(3.0)}, None, keep=1)
    assert [checkpoint.step for checkpoint in checkpoints.listing(copy)] == [60]
    assert checkpoints.newest_sound(copy)[1] == {}


def test_the_best_one_is_unknown_while_a_record_is_damaged(copy: pathlib.Path) -> None:
    harm(copy / "50" / "checkpoint.json")
    assert checkpoints.choose(copy, "latest").step == 110
    for which in ("best", "50"):
        with pytest.raises(UserError, match="50 is damaged"):
            checkpoints.choose(copy, which)


def test_a_damaged_checkpoint_is_skipped(
    run: pathlib.Path, finished: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    harm(run / "checkpoints" / "12" / "state" / "_METADATA")
    main([f"--workdir={run}", *TINY])
    said = capsys.readouterr().out
    assert f"{run / 'checkpoints' / '12'} is damaged" in said and "training continues from step 6" in said
    assert bits(run) == bits(finished)


@pytest.mark.long
@pytest.mark.smoke
def test_a_run_of_an_earlier_version_goes_on(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    workdir = pathlib.Path(shutil.copytree(EARLIER_VERSION, tmp_path / "first"))
    recorded = next(row for row in read_rows(workdir / "metrics.jsonl") if row["split"] == "test" and row["step"] == 20)
    main(["evaluate", f"--workdir={workdir}", "--num_samples=50"])
    # The same bound of the same images; one sample an image then, 50 now.
    elbo = read_json(workdir / "evaluation.json")["elbo"]["mean"]
    assert elbo == pytest.approx(recorded["elbo"], abs=recorded["elbo_standard_error"])
    capsys.readouterr()
    written = ["--config.train.checkpoint_every=10", "--config.train.log_every=5", "--config.train.ema_decay=0.9"]
    model = [*MODEL, "--config.model.network.hidden=(4,)"]
    main([f"--workdir={workdir}", *model, *written, "--config.train.num_steps=25"])
    captured = capsys.readouterr()
    assert "at step 20 of 25" in captured.out and "damaged" not in captured.out and captured.err == ""
    steps = [row["step"] for row in read_rows(workdir / "metrics.jsonl") if row["split"] == "train"]
    assert steps == [5, 10, 15, 20, 25]


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("name", ["config.json", "images.json"])
def test_a_damaged_description_of_a_model_is_refused(
    run: pathlib.Path, name: str, how: str, capsys: pytest.CaptureFixture
) -> None:
    """Or made up for by the data."""
    harm(run / name, how)
    try:
        main(["sample", f"--workdir={run}", "--num_images=1"])
    except SystemExit as refused:
        assert refused.code == 2 and capsys.readouterr().err.count("\n") == 1
    else:
        assert (name, how) == ("images.json", "delete")


def test_a_damaged_name_in_a_config_is_no_mistake_of_the_user(run: pathlib.Path) -> None:
    config = run / "config.json"
    config.write_bytes(config.read_bytes().replace(b'"num_steps"', b'"num_wteps"'))
    with pytest.raises(UserError, match=r"config\.json is damaged.*'train\.num_wteps'"):
        RunFolder(run).read_config()


# So many zeros would be taken for text in UTF-32.
@pytest.mark.parametrize("content", [b"", b'{"starts', bytes(1126)])
def test_a_damaged_manifest_is_no_json(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json can't be read \(not JSON: "):
        RunFolder(tmp_path).last_start()


@pytest.mark.long
@pytest.mark.parametrize("how", ["truncate", "empty", "zero", "delete"])
def test_damaged_metrics_are_told_and_training_goes_on(
    run: pathlib.Path, how: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    before = read_rows(run / "metrics.jsonl")
    harm(run / "metrics.jsonl", how)
    main([f"--workdir={run}", *TINY, "--config.train.num_steps=13"])
    told = caplog.text + capsys.readouterr().err
    assert "metrics.jsonl" in told and ("damaged" in told or "are lost" in told)
    after = read_rows(run / "metrics.jsonl")
    assert [row for row in after if row["step"] <= 12] == [row for row in before if row in after]
    assert after[-1]["step"] == 13


ROW = {"step": 1, "epoch": 0.1, "split": "train", "elbo": -3.0, "reconstruction": -2.0, "kl": 1.0, "note": None}
NO_ROWS = [
    *(1, [], None, "step", {}, [ROW]),
    *({**ROW, "step": step} for step in ("3", 3.0, None, True)),
    *({**ROW, name: value} for name in ("elbo", "kl") for value in ("1", [1], float("nan"))),
    *({**ROW, "split": "other"}, {**ROW, "elbo": 10**400}),
    *({name: value for name, value in ROW.items() if name != left_out} for left_out in list(ROW)[:-1]),
]


def test_lines_that_are_no_rows_are_left_out_and_told(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [json.dumps(row).encode() for row in (ROW, *NO_ROWS, ROW)]
    lines[3:3] = [b"[" * 10**5, b"\xff\xfe", b"{"]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    assert read_rows(path) == [ROW] * 2 and "its lines 2" in caplog.text
    caplog.clear()
    # What was cut off while it was written is nothing to tell.
    path.write_bytes(lines[0] + b"\n" + lines[0][:15])
    assert read_rows(path) == [ROW] and not caplog.records
