"""What listens to training: the metrics file, TensorBoard and the terminal."""

import abc
import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import tqdm
from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from vae_jax.cli.terminal import put_out
from vae_jax.files import replacing
from vae_jax.runs import read_rows, row_line

Row = dict[str, Any]
# How long TensorBoard may wait for what is already there.
_SECONDS_BETWEEN_FLUSHES = 30.0
# Fewer of the active units left than this are worth a warning.
_SHARE_LEFT = 0.75


class Listener(abc.ABC):
    """What is told of the rows of a run."""

    @abc.abstractmethod
    def write(self, row: Row) -> None:
        """Takes a row."""

    def sync(self) -> None:  # noqa: B027, most have nothing to do
        """Makes sure, before a checkpoint, that the rows that lead up to it outlive the machine."""


class MetricsFile(Listener):
    """`metrics.jsonl`: a row per log point, cut back to where a continued run starts.

    Args:
        path: The file.
        step: Steps that are already taken; later rows are dropped, so that no step is there twice.
    """

    def __init__(self, path: pathlib.Path, step: int) -> None:
        kept = [row for row in read_rows(path) if row["step"] <= step]
        with replacing(path, "make room, or choose another --workdir") as unfinished:
            unfinished.write_text("".join(map(row_line, kept)), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        # A checkpoint is always the end of a row.
        if step and (not kept or kept[-1]["step"] != step):
            last = f"end at step {kept[-1]['step']}" if kept else "are gone"
            print(f"{path}: its rows {last}, the checkpoint is of step {step}; those between are lost", file=sys.stderr)

    def write(self, row: Row) -> None:
        """Adds a row."""
        self._file.write(row_line(row))
        self._file.flush()

    def sync(self) -> None:
        """As `Listener.sync`."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoard(Listener):
    """The same rows as event files.

    They are written here and now: tensorboardX's own `SummaryWriter` leaves that to a thread, which dies where the disk
    is full, and then waits for it for ever.

    Args:
        folder: Where they go.
        step: Steps that are already taken; TensorBoard hides what an earlier start wrote after it.
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
        values = [
            Summary.Value(tag=f"{row['split']}/{name}", simple_value=value)
            for name, value in row.items()
            if isinstance(value, float) and name != "epoch"
        ]
        self._add(step=row["step"], summary=Summary(value=values))
        if time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self.sync()

    def sync(self) -> None:
        """As `Listener.sync`."""
        self._events.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is still buffered."""
        self._events.close()

    def _add(self, **content: Any) -> None:
        self._events.write(Event(wall_time=time.time(), **content).SerializeToString())


class Console(Listener):
    """A progress bar with the current terms; plain lines where the output is no terminal.

    Args:
        step: Steps that are already taken.
        num_steps: Steps in all.
        quiet: Whether rows aren't shown.
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
        put_out(line)
        self._bar.refresh()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


class CollapseWatch(Listener):
    """Warns when latent dimensions that told images apart stop doing so: the posterior falls back on the prior.

    The KL falls too then; where it rises, few dimensions have come to say more than many did. It warns once.

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
        """Looks at a row."""
        if self._collapsed(row) and not self._warned:
            self._warned = True
            self._say(
                f"warning: active latent units of the {row['split']} images fell from {self._most} to "
                f"{row['active_units']}, and KL from {self._kl_of_most:.2f} to {row['kl']:.2f}: the posterior is "
                "collapsing onto the prior; --config.objective.name=free_bits, or beta with annealing, keeps it from "
                "that"
            )

    def _collapsed(self, row: Row) -> bool:
        active, kl = row.get("active_units"), row.get("kl")
        # Of one image alone none is known.
        if active is None or kl is None or row.get("num_images", 2) < 2:
            return False
        if active >= self._most:
            self._most, self._kl_of_most = active, kl
        return active < _SHARE_LEFT * self._most and kl < self._kl_of_most


def describe(row: Row) -> str:
    """The bound of a split in one line, with its error bar."""
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
