"""Where the metrics of training go: the metrics file, TensorBoard, Weights & Biases and the terminal."""

import abc
import importlib
import os
import pathlib
import socket
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import tqdm
from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from vae_jax.cli.terminal import print_lines
from vae_jax.config import Config, flatten
from vae_jax.errors import UserError
from vae_jax.escaping import one_line
from vae_jax.files import read_json, replacing, write_json
from vae_jax.runs import read_rows, row_line

Row = dict[str, Any]
# TensorBoard shows rows after at most this time.
_SECONDS_BETWEEN_FLUSHES = 30.0
# A smaller share of the active units is worth a warning.
_SHARE_LEFT = 0.75


class Listener(abc.ABC):
    """Gets the rows of metrics of a run."""

    @abc.abstractmethod
    def write(self, row: Row) -> None:
        """Takes a row."""

    def flush(self) -> None:  # noqa: B027, optional
        """Makes sure, before a checkpoint, that earlier rows survive a crash."""

    def close(self) -> None:  # noqa: B027, optional
        """Writes what is still buffered, and closes."""


class MetricsFile(Listener):
    """`metrics.jsonl`: a row per log point. A continued run first drops the rows after its checkpoint.

    Args:
        path: The file.
        step: Step of the checkpoint that training starts from.
    """

    def __init__(self, path: pathlib.Path, step: int) -> None:
        kept = [row for row in read_rows(path) if row["step"] <= step]
        with replacing(path, "make room, or choose another --workdir") as unfinished:
            unfinished.write_text("".join(map(row_line, kept)), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        # There is a row for the step of each checkpoint.
        if step and (not kept or kept[-1]["step"] != step):
            last = kept[-1]["step"] if kept else 0
            print(f"{path}: the rows between step {last} and the checkpoint of step {step} are lost", file=sys.stderr)

    def write(self, row: Row) -> None:
        """Adds a row."""
        self._file.write(row_line(row))
        self._file.flush()

    def flush(self) -> None:
        """Writes the rows to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoard(Listener):
    """The same rows as TensorBoard event files.

    tensorboardX's own `SummaryWriter` isn't used: if the disk is full its thread ends, and the program waits forever.

    Args:
        folder: Of the event files.
        step: Step that training starts from; TensorBoard hides what an earlier start wrote after it.
    """

    def __init__(self, folder: pathlib.Path, step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._events = RecordWriter(str(folder / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"))
        self._add(file_version="brain.Event:2")
        if step:
            self._add(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self._flushed = time.monotonic()

    def write(self, row: Row) -> None:
        """Adds a row."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in _numbers(row).items()]
        self._add(step=row["step"], summary=Summary(value=values))
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self.flush()

    def flush(self) -> None:
        """Writes the rows to the disk."""
        self._events.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is still buffered."""
        self._events.close()

    def _add(self, **content: Any) -> None:
        self._events.write(Event(wall_time=time.time(), **content).SerializeToString())


class Wandb(Listener):
    """The same rows as a run of Weights & Biases, which reads its own `WANDB_...` environment variables.

    Args:
        folder: Of the run; offline files go there.
        config: The run.

    Raises:
        UserError: If the package is missing or fails.
    """

    def __init__(self, folder: pathlib.Path, config: Config) -> None:
        settings = {name: value for name, value, _ in flatten(config)}
        try:
            self._run = self.check().init(
                project="vae_jax", name=folder.name, id=_run_id(folder), resume="allow", dir=folder, config=settings
            )
        except Exception as error:
            # It has its own exceptions for the network, the login and the disk.
            raise UserError(f"wandb can't be used: {one_line(error)}; fix that, or leave out --wandb") from error
        # A continued run repeats steps, which wandb's own count of steps doesn't allow.
        self._run.define_metric("*", step_metric="step")

    @staticmethod
    def check() -> Any:
        """Imports the package.

        Raises:
            UserError: If it isn't installed.
        """
        try:
            return importlib.import_module("wandb")
        except ImportError as error:
            raise UserError("wandb isn't installed; pip install wandb, or leave out --wandb") from error

    def write(self, row: Row) -> None:
        """Adds a row."""
        self._run.log({**_numbers(row), "step": row["step"]})

    def close(self) -> None:
        """Sends what is still buffered."""
        self._run.finish()


class Console(Listener):
    """A progress bar with the current terms of the bound; plain lines if the output isn't a terminal.

    Args:
        step: Step that training starts from.
        num_steps: The last step.
        quiet: Whether nothing is shown.
    """

    def __init__(self, step: int, num_steps: int, quiet: bool = False) -> None:
        self._quiet = quiet
        hidden = quiet or not sys.stderr.isatty()
        self._bar = tqdm.tqdm(initial=step, total=num_steps, unit="step", disable=hidden, dynamic_ncols=True)

    def write(self, row: Row) -> None:
        """Shows a row."""
        if self._quiet:
            return
        if row["split"] == "train":
            self._bar.update(row["step"] - self._bar.n)
            self._bar.set_postfix_str(f"{_terms(row)}, {row['images_per_second']:,.0f} images/s")
        else:
            self.say(f"step {row['step']:>7}, epoch {row['epoch']:.1f}: {describe(row)}")

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self._bar.clear()
        print_lines(line)
        self._bar.refresh()

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()


class CollapseWatch(Listener):
    """Warns once if the posterior collapses onto the prior: both the number of active latents and the KL fall.

    If the KL rises, fewer latents carry more information, which is no collapse.

    Args:
        earlier: Rows of the run so far.
        say: Prints a line.
    """

    def __init__(self, earlier: list[Row], say: Callable[[str], object]) -> None:
        self._most, self._kl_of_most, self._warned = 0, 0.0, False
        self._say = say
        for row in earlier:
            self._collapsed(row)

    def write(self, row: Row) -> None:
        """Checks a row."""
        if self._collapsed(row) and not self._warned:
            self._warned = True
            self._say(
                f"warning: active latent units of the {row['split']} images fell from {self._most} to "
                f"{row['active_units']}, and KL from {self._kl_of_most:.2f} to {row['kl']:.2f}: the posterior is "
                "collapsing onto the prior; --config.objective=free_bits, or beta with annealing, prevents that"
            )

    def _collapsed(self, row: Row) -> bool:
        active, kl = row.get("active_units"), row.get("kl")
        # A single image has no active units.
        if active is None or kl is None or row.get("num_images", 2) < 2:
            return False
        if active >= self._most:
            self._most, self._kl_of_most = active, kl
        return active < _SHARE_LEFT * self._most and kl < self._kl_of_most


def describe(row: Row) -> str:
    """The bound of a split with its standard error, in one line."""
    noise = "" if row.get("noise_stddev") is None else f", noise of p(x|z) {row['noise_stddev']:.4f}"
    if row["elbo"] is None:
        reason = "no bound: q(z|x) has no density"
        return f"{row['split']} reconstruction {row['reconstruction']:.2f} nats ({reason}){noise}"
    error = row.get("elbo_standard_error")
    bar = "" if error is None else f" ± {error:.2f}"
    if "elbo_spread" in row:
        bar += f" (images) ± {row['elbo_spread']:.2f} (standard deviation of {len(row['replicas']['elbo'])} replicas)"
    return (
        f"{row['split']} ELBO {row['elbo']:.2f}{bar} nats "
        f"(reconstruction {row['reconstruction']:.2f}, KL {row['kl']:.2f}){noise}"
    )


def _terms(row: Row) -> str:
    if row["elbo"] is None:
        return f"reconstruction {row['reconstruction']:.2f}"
    return f"elbo {row['elbo']:.2f} = {row['reconstruction']:.2f} - {row['kl']:.2f}"


def _numbers(row: Row) -> dict[str, float]:
    return {
        f"{row['split']}/{name}": value for name, value in row.items() if isinstance(value, float) and name != "epoch"
    }


def _run_id(folder: pathlib.Path) -> str:
    """The run's name at Weights & Biases, the same at each start."""
    path = folder / "wandb.json"
    if not path.exists():
        write_json(path, {"id": uuid.uuid4().hex[:12]})
    return str(read_json(path)["id"])
