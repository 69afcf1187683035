"""A run that is continued ends as the run that was never stopped, bit for bit; kills stand in tests/reliability."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from tiny_runs import TINY, bits, rows, train

from vae_jax.cli import main
from vae_jax.runs import checkpoints


def test_more_steps_continue(finished: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    train(tmp_path / "run", "--config.train.num_steps=5")
    train(tmp_path / "run")
    assert f"continuing {tmp_path / 'run'} at step 5 of 12" in capsys.readouterr().out
    assert bits(tmp_path / "run") == bits(finished)
    # The first part ended with a checkpoint, whose measurements are all that is more.
    assert [row for row in rows(tmp_path / "run") if row in rows(finished)] == rows(finished)


@pytest.mark.long
@pytest.mark.parametrize("which", ["params", "average"])
def test_init_from_starts_from_the_others_parameters(
    which: str, finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Or from their average, where one is kept. Steps of length zero leave them where they started."""
    first = finished if which == "params" else train(tmp_path / "first", "--config.train.ema_decay=0.5")
    still = ["--config.train.optimizer=sgd", "--config.train.learning_rate=0.0", "--config.seed=1"]
    train(tmp_path / "second", f"--init_from={first}", *still, "--config.train.num_steps=1")
    ours, theirs = bits(tmp_path / "second"), bits(first)
    names = [name for name in ours if name.startswith("['params']")]
    assert names and all(ours[name] == theirs[name.replace("params", which, 1)] for name in names)
    assert which == "params" or any(ours[name] != theirs[name] for name in names)


@pytest.mark.long
def test_a_folder_in_which_no_step_was_taken_is_used_again(run: pathlib.Path) -> None:
    """A start that failed late leaves a config, perhaps for other images; the next start replaces it."""
    for name in ("checkpoints", "tensorboard", "images"):
        shutil.rmtree(run / name)
    (run / "metrics.jsonl").write_text("")
    images = run / "images.json"
    images.write_text(images.read_text().replace("8,", "9,", 1))
    main([f"--workdir={run}", *TINY, "--config.train.learning_rate=0.5"])
    config = json.loads((run / "config.json").read_text())
    assert config["train"]["learning_rate"] == 0.5 and '"image_shape": [\n    8' in images.read_text()
    assert len(json.loads((run / "manifest.json").read_text())["starts"]) == 1
    assert checkpoints.choose(run / "checkpoints", "latest").step == 12


@pytest.mark.long
def test_a_run_opens_from_any_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez("mine.npz", images=np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8))
    source = ["--config.data.source=npz", "--config.data.path=mine.npz", "--config.train.batch_size=8"]
    train(pathlib.Path("run"), *source, "--config.train.num_steps=1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    main(["reconstruct", "--workdir=../run"])
