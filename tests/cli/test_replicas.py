"""Several seeds at once, from training to evaluation, and what doesn't fit the memory."""

import pathlib
import re

import numpy as np
import pytest
from tiny_runs import TINY, read_json, rows, train

from vae_jax.cli import main, memory
from vae_jax.runs import checkpoints

EVALUATE = ["--num_samples=10", "--num_images=50"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    root = tmp_path_factory.mktemp("runs")
    return {
        "three": train(root / "three", "--config.num_seeds=3", "--config.seed=4"),
        "alone": train(root / "alone", "--config.seed=5"),
    }


@pytest.mark.long
def test_rows_have_mean_spread_and_each_replica(runs: dict[str, pathlib.Path]) -> None:
    three, alone = ({row["split"]: row for row in rows(runs[name])} for name in ("three", "alone"))
    for split in ("train", "validation", "test"):
        for name in ("elbo", "reconstruction", "kl"):
            each = three[split]["replicas"][name]
            assert len(each) == 3
            np.testing.assert_allclose(three[split][name], np.mean(each), rtol=1e-12)
            np.testing.assert_allclose(three[split][f"{name}_spread"], np.std(each, ddof=1), rtol=1e-9)
            np.testing.assert_allclose(each[1], alone[split][name], rtol=1e-4)


@pytest.mark.long
def test_each_replica_is_opened_by_its_number(runs: dict[str, pathlib.Path], refused) -> None:
    three, alone = runs["three"], runs["alone"]
    saved = checkpoints.load(checkpoints.choose(three / "checkpoints", "latest"))
    assert saved["params"]["decoder"]["Dense_0"]["kernel"].shape == (3, 2, 8)
    for folder in (three, alone):
        main(["evaluate", f"--workdir={folder}", *EVALUATE])
    found, expected = (read_json(folder / "evaluation.json") for folder in (three, alone))
    each = [replica["log_likelihood"]["mean"] for replica in found["replicas"]]
    np.testing.assert_allclose(each[1], expected["log_likelihood"]["mean"], rtol=1e-4)
    over = found["over_replicas"]["log_likelihood"]
    np.testing.assert_allclose([over["mean"], over["stddev"]], [np.mean(each), np.std(each, ddof=1)], rtol=1e-9)
    main(["evaluate", f"--workdir={three}", *EVALUATE, "--replica=2"])
    one = read_json(three / "evaluation_replica2.json")
    assert one["replica"] == 2 and one["log_likelihood"]["mean"] == each[2]
    for replica in (0, 1):
        main(["sample", f"--workdir={three}", f"--replica={replica}"])
    pictures = [(three / "images" / f"samples_mean_step12{name}.png").read_bytes() for name in ("", "_replica1")]
    assert pictures[0] != pictures[1]
    assert "this run has 3: choose a replica from 0 to 2" in refused("sample", f"--workdir={three}", "--replica=3")


@pytest.mark.long
def test_single_models_parameters_start_all_replicas(runs: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    still = ["--config.train.learning_rate=0.0", "--config.train.num_steps=1", "--config.num_seeds=2"]
    train(tmp_path / "run", *still, f"--init_from={runs['alone']}")
    ours, theirs = (
        checkpoints.load(checkpoints.choose(run / "checkpoints", "latest"))["params"]["decoder"]["Dense_0"]["kernel"]
        for run in (tmp_path / "run", runs["alone"])
    )
    np.testing.assert_array_equal(ours, np.stack([theirs, theirs]))


def test_what_does_not_fit_the_memory_is_told_before_it_starts(monkeypatch: pytest.MonkeyPatch, refused) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda mesh: 200_000)
    message = refused("--workdir=run", *TINY, "--config.num_seeds=3")
    assert re.search(r"needs [\d,]+ (MB|bytes) of memory, but [\d,]+ bytes are free; images, parameters", message)


@pytest.mark.long
@pytest.mark.parametrize(("batch", "told"), [(12, True), (16, False)])
def test_devices_that_have_nothing_to_do_are_told_of(batch: int, told: bool, capsys: pytest.CaptureFixture) -> None:
    train(pathlib.Path("run"), "--config.train.num_steps=1", f"--config.train.batch_size={batch}")
    assert ("a batch of 12 uses 6 of 8 devices" in capsys.readouterr().out) == told
