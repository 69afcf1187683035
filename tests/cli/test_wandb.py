"""Weights & Biases in offline mode, and `--quiet`."""

import json
import pathlib
import struct
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from vae_jax.cli import main
from vae_jax.runs import read_rows

TINY = [
    "--config.model.network.hidden=(4,)",
    "--config.model.latents=2",
    "--config.train.log_every=5",
    "--config.train.report=False",
]


def run_twice(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Trains and continues a run, and returns its rows."""
    for steps in (10, 20):
        main([f"--workdir={workdir}", *TINY, f"--config.train.num_steps={steps}", "--wandb"])
    return read_rows(workdir / "metrics.jsonl")


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, after a header of 7 bytes."""
    block_size, position, joined = 32768, 7, b""
    while position + 7 <= len(content):
        left = block_size - position % block_size
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        joined += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield joined
            joined = b""


@pytest.mark.manual
def test_wandb_gets_the_rows_of_the_metrics_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb isn't installed; pip install -e '.[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = run_twice(tmp_path / "run")
        from wandb.proto import wandb_internal_pb2

        found, ids = {}, set()
        for path in (tmp_path / "run").glob("wandb/offline-run-*/*.wandb"):
            for data in log_records(path.read_bytes()):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(data)
                if record.HasField("run"):
                    ids.add(record.run.run_id)
                items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                for split in ("train", "test"):
                    if f"{split}/elbo" in items:
                        found[split, items["step"]] = items[f"{split}/elbo"]
    assert len(ids) == 1
    expected = {(row["split"], row["step"]): row["elbo"] for row in rows if row["split"] in ("train", "test")}
    assert found == pytest.approx(expected)


def test_missing_package_is_reported_before_anything_is_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SystemExit) as stop:
        main([f"--workdir={tmp_path / 'run'}", *TINY, "--config.train.num_steps=5", "--wandb"])
    assert stop.value.code == 2 and "pip install wandb" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_quiet_prints_only_the_result(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    main(
        [
            f"--workdir={tmp_path / 'run'}",
            *TINY,
            "--config.train.num_steps=20",
            "--config.train.checkpoint_every=5",
            "--quiet",
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("20 steps in ")
