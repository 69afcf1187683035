"""What listens to a run: Weights & Biases, warnings about its rows, standard output that nobody reads any more."""

import os
import pathlib
import sys
import types

import pytest
from tiny_runs import TINY, read_json, rows, train

from vae_jax.cli.listeners import CollapseWatch
from vae_jax.cli.terminal import print_lines, say


def row(active: int | None, kl: float) -> dict:
    return {"split": "test", "step": 1, "active_units": active, "kl": kl}


@pytest.mark.parametrize(
    ("earlier", "new", "count"),
    [
        ([], [row(10, 8.0), row(7, 5.0), row(3, 1.0)], 1),
        ([row(10, 8.0)], [row(3, 1.0)], 1),  # across a restart
        ([], [row(10, 0.5), row(5, 4.0), row(5, 6.0)], 0),  # the KL rises
        ([], [row(10, 8.0), row(None, 0.0)], 0),
    ],
)
def test_a_collapse_is_told_once(earlier: list[dict], new: list[dict], count: int) -> None:
    lines: list[str] = []
    watch = CollapseWatch(earlier, lines.append)
    for each in new:
        watch.write(each)
    assert len(lines) == count and all("fell from 10 to" in line and "free_bits" in line for line in lines)


def test_a_closed_pipe_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        print_lines("read")
        assert os.read(reading, 100) == b"read\n"
        os.close(reading)
        print_lines("not read")
        say("not read either")


class FakeWandb(types.ModuleType):
    """What the package is asked to do."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started, self.logged, self.ended = [], [], 0

    def init(self, **settings):
        self.started.append(settings)
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def log(self, row: dict) -> None:
        self.logged.append(row)

    def finish(self) -> None:
        self.ended += 1


@pytest.mark.long
def test_wandb_gets_the_rows_of_the_metrics_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for steps in (5, 12):
        train(tmp_path / "run", f"--config.train.num_steps={steps}", "--wandb")
    # A continued run is the same one there.
    assert [each["id"] for each in wandb.started] == [read_json(tmp_path / "run" / "wandb.json")["id"]] * wandb.ended
    assert wandb.ended == 2 and wandb.started[0]["config"]["model.latents"] == 2
    found = [{name: each[name] for name in each if name.endswith(("step", "/elbo", "/kl"))} for each in wandb.logged]
    assert found == [
        {"step": row["step"], **{f"{row['split']}/{name}": row[name] for name in ("elbo", "kl")}}
        for row in rows(tmp_path / "run")
    ]


def test_a_missing_package_is_told_before_anything_is_written(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "pip install wandb" in refused("--workdir=run", *TINY, "--wandb")
