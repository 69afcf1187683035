"""Several seeds at once, from training to evaluation, and what doesn't fit the memory."""

import json
import pathlib
import re

import numpy as np
import pytest

from vae_jax.cli import main, memory
from vae_jax.runs import checkpoints

pytestmark = pytest.mark.long

SMALL = [
    *("--config.model.network.hidden=(8,)", "--config.model.latents=3", "--config.train.num_steps=40"),
    "--config.train.report=False",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    root = tmp_path_factory.mktemp("runs")
    main([f"--workdir={root / 'three'}", *SMALL, "--config.num_seeds=3", "--config.seed=4"])
    main([f"--workdir={root / 'alone'}", *SMALL, "--config.seed=5"])
    return {name: root / name for name in ("three", "alone")}


def last_rows(workdir: pathlib.Path) -> dict[str, dict]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["split"]: row for row in rows}


def test_rows_have_mean_spread_and_each_replica(runs: dict[str, pathlib.Path]) -> None:
    three, alone = last_rows(runs["three"]), last_rows(runs["alone"])
    for split in ("train", "validation", "test"):
        for name in ("elbo", "reconstruction", "kl"):
            each = three[split]["replicas"][name]
            assert len(each) == 3
            np.testing.assert_allclose(three[split][name], np.mean(each), rtol=1e-12)
            np.testing.assert_allclose(three[split][f"{name}_spread"], np.std(each, ddof=1), rtol=1e-9)
            np.testing.assert_allclose(each[1], alone[split][name], rtol=1e-4)


def test_one_checkpoint_holds_all_and_each_is_opened_by_its_number(
    runs: dict[str, pathlib.Path], capsys: pytest.CaptureFixture
) -> None:
    saved = checkpoints.load(checkpoints.choose(runs["three"] / "checkpoints", "latest"))
    assert saved["params"]["decoder"]["Dense_0"]["kernel"].shape == (3, 3, 8)
    main(["evaluate", f"--workdir={runs['three']}", "--num_samples=10", "--num_images=50"])
    found = json.loads((runs["three"] / "evaluation.json").read_text())
    main(["evaluate", f"--workdir={runs['alone']}", "--num_samples=10", "--num_images=50"])
    alone = json.loads((runs["alone"] / "evaluation.json").read_text())
    each = [replica["log_likelihood"]["mean"] for replica in found["replicas"]]
    np.testing.assert_allclose(each[1], alone["log_likelihood"]["mean"], rtol=1e-4)
    over = found["over_replicas"]["log_likelihood"]
    np.testing.assert_allclose([over["mean"], over["stddev"]], [np.mean(each), np.std(each, ddof=1)], rtol=1e-9)
    assert "over 3 replicas" in capsys.readouterr().out
    main(["evaluate", f"--workdir={runs['three']}", "--num_samples=10", "--num_images=50", "--replica=2"])
    one = json.loads((runs["three"] / "evaluation_replica2.json").read_text())
    assert one["replica"] == 2 and one["log_likelihood"]["mean"] == each[2]
    assert json.loads((runs["three"] / "evaluation.json").read_text()) == found
    pictures = []
    for replica in (0, 1):
        main(["sample", f"--workdir={runs['three']}", f"--replica={replica}"])
    for name in ("", "_replica1"):
        (output,) = (runs["three"] / "images").glob(f"samples_mean_step40{name}.png")
        pictures.append(output.read_bytes())
    assert pictures[0] != pictures[1]


def test_single_models_parameters_start_all_replicas(runs: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    still = ["--config.train.learning_rate=0.0", "--config.train.num_steps=1"]
    main([f"--workdir={tmp_path / 'run'}", *SMALL, *still, "--config.num_seeds=2", f"--init_from={runs['alone']}"])
    ours = checkpoints.load(checkpoints.choose(tmp_path / "run" / "checkpoints", "latest"))["params"]
    theirs = checkpoints.load(checkpoints.choose(runs["alone"] / "checkpoints", "latest"))["params"]
    kernel = theirs["decoder"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(ours["decoder"]["Dense_0"]["kernel"], np.stack([kernel, kernel]))


def test_replica_that_is_not_there(runs: dict[str, pathlib.Path], refused) -> None:
    for verb in ("evaluate", "diagnose", "sample", "reconstruct"):
        message = refused(verb, f"--workdir={runs['three']}", "--replica=3")
        assert "this run has 3: choose a replica from 0 to 2" in message


def test_what_does_not_fit_the_memory_is_told_before_it_starts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, refused
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: 200_000)
    message = refused(f"--workdir={tmp_path / 'run'}", *SMALL, "--config.num_seeds=3")
    assert re.search(r"needs [\d,]+ (MB|bytes) of memory, but [\d,]+ bytes are free; images, parameters", message)
    assert not (tmp_path / "run").exists()


@pytest.mark.manual
def test_devices_that_have_nothing_to_do_are_told_of(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    small = [*SMALL, "--config.train.num_steps=1"]
    main([f"--workdir={tmp_path / 'run'}", *small, "--config.train.batch_size=12"])
    assert "a batch of 12 uses 6 of 8 devices" in capsys.readouterr().out
    main([f"--workdir={tmp_path / 'other'}", *small, "--config.train.batch_size=16"])
    assert "of 8 devices" not in capsys.readouterr().out
