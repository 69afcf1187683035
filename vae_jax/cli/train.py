"""`train`: trains a run from its config, or continues it from its last checkpoint."""

import contextlib
import math
import pathlib
import sys
import time

import jax
from absl import flags

from vae_jax.cli.divergence import SLOWER, divergence
from vae_jax.cli.flags import Flags, config_file, define_config, read_config
from vae_jax.cli.listeners import CollapseWatch, Console, Listener, MetricsFile, Row, TensorBoard, Wandb, describe
from vae_jax.cli.report import write_report
from vae_jax.cli.signals import StopRequest
from vae_jax.cli.terminal import say
from vae_jax.cli.training_run import ADVICE, TrainingRun
from vae_jax.errors import Stopped, UserError
from vae_jax.escaping import one_line
from vae_jax.processes import end_together, is_writer, join
from vae_jax.provenance import command_line, program
from vae_jax.runs import RunFolder, read_rows
from vae_jax.training import Background, CheckpointDue, Interrupted


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """Defines the flags of `train`."""
    define_config(values, arguments)
    name = pathlib.Path(config_file(arguments) or "digits").stem
    flags.DEFINE_string("workdir", f"runs/{name}", "folder of the run; created if missing", flag_values=values)
    flags.DEFINE_string("init_from", None, "folder of a run whose parameters to start from", flag_values=values)
    meaning = "log the metrics to Weights & Biases too (pip install wandb)"
    flags.DEFINE_boolean("wandb", False, meaning, flag_values=values)
    flags.DEFINE_boolean("quiet", False, "print only the result and warnings", flag_values=values)
    several = "for a run of several processes, if SLURM or the TPU pod doesn't set it"
    flags.DEFINE_string("coordinator_address", None, f"host:port of the first process, {several}", flag_values=values)
    flags.DEFINE_integer("num_processes", None, f"number of processes, {several}", flag_values=values, lower_bound=1)
    meaning = f"number of this process, from 0, {several}"
    flags.DEFINE_integer("process_id", None, meaning, flag_values=values, lower_bound=0)


def run(values: Flags) -> None:
    """Trains or continues the run in a folder.

    Raises:
        UserError: For an error that a user can fix; earlier checkpoints stay good.
        Stopped: If a signal stopped the run after a checkpoint.
    """
    join(values["coordinator_address"], values["num_processes"], values["process_id"])
    config, folder = read_config(values), RunFolder(pathlib.Path(values["workdir"]))
    wandb, quiet = values["wandb"], values["quiet"]
    if wandb:
        Wandb.check()
    with contextlib.ExitStack() as stack:
        training = TrainingRun.prepare(config, folder, values["init_from"], stack)
        _say_idle_devices(training)
        start, num_steps = int(training.state.step), training.schedule.num_steps
        if is_writer():
            folder.add_to_manifest(command_line(), training.data)
        if start >= num_steps:
            if is_writer():
                say(f"{folder.root} is finished: it has {start} of {num_steps} steps. {_last_result(folder)}")
            return
        if is_writer() and not quiet:
            if start:
                say(f"continuing {folder.root} at step {start} of {num_steps}")
            say(f"{training.data}")
        began = time.perf_counter()
        try:
            last = _train_to_end(training, wandb, quiet)
        except OSError as error:
            raise UserError(f"{folder.root} can't be written ({error.strerror or error}); {ADVICE}") from error
        if last.step < num_steps:
            raise Stopped(
                f"stopped and saved at step {last.step} of {num_steps}; the same command continues from there"
            )
        if is_writer():
            _finish(training, last, f"{num_steps - start} steps in {time.perf_counter() - began:.1f} s", quiet)


def _train_to_end(training: TrainingRun, wandb: bool, quiet: bool) -> CheckpointDue | Interrupted:
    """Trains until the last step or a signal; returns the last saved event."""
    last, request = None, StopRequest()
    with request.handle_signals(), contextlib.ExitStack() as stack:
        background = stack.enter_context(Background(beside=jax.process_count() == 1))
        listeners = _listeners(training, wandb, quiet, stack) if is_writer() else []
        for event in training.events(request):
            background.check()
            if not training.is_finite(event):
                background.wait()
                error = divergence(training, event.step)
                end_together("diverged")
                raise error
            for row in training.rows(event):
                _check_finite(row)
                for listener in listeners:
                    listener.write(row)
            if isinstance(event, CheckpointDue | Interrupted):
                for listener in listeners:
                    listener.flush()
                training.keep(event, background)
                last = event
        background.wait()
    assert last is not None
    return last


def _finish(training: TrainingRun, last: CheckpointDue | Interrupted, done: str, quiet: bool) -> None:
    """Prints the result and writes the report."""
    folder = training.folder
    skipped = sum(row.get("skipped_steps", 0.0) for row in read_rows(folder.metrics) if row["split"] == "train")
    if skipped:
        say(f"{skipped:g} steps were skipped because they weren't finite: see skipped_steps in {folder.metrics}")
    say(f"{done}. {_last_result(folder)}")
    if isinstance(last, CheckpointDue) and training.config.train.report:
        try:
            write_report(training.trained_run(last))
        except Exception as error:
            # The run itself is good, whatever went wrong with its report.
            again = f"{program()} report --workdir={folder.root}"
            print(f"report.html wasn't written ({one_line(error)}); to try again: {again}", file=sys.stderr)
    if not quiet:
        verb = "evaluate" if "density" in training.model.traits else "reconstruct"
        say(f"everything is in {folder.root}; next: {program()} {verb} --workdir={folder.root}")


def _say_idle_devices(training: TrainingRun) -> None:
    """Tells which batch size would use all devices, if some are idle."""
    used, present, batch_size = training.mesh.size, jax.device_count(), training.config.train.batch_size
    if is_writer() and used < present:
        below, above = batch_size // present * present, -(-batch_size // present) * present
        others = " or ".join(str(size) for size in (below, above) if size)
        say(
            f"a batch of {batch_size} uses {used} of {present} devices, because the number of devices must divide it; "
            f"--config.train.batch_size={others} would use all"
        )


def _listeners(training: TrainingRun, wandb: bool, quiet: bool, stack: contextlib.ExitStack) -> list[Listener]:
    """Creates what gets each row of metrics; `stack` closes it."""
    folder, start = training.folder, int(training.state.step)
    listeners: list[Listener] = []

    def add(listener: Listener) -> None:
        stack.callback(listener.close)
        listeners.append(listener)

    if wandb:
        add(Wandb(folder.root, training.config))
    add(MetricsFile(folder.metrics, start))
    add(TensorBoard(folder.tensorboard, start))
    console = Console(start, training.schedule.num_steps, quiet)
    add(console)
    add(CollapseWatch(read_rows(folder.metrics), console.say))
    return listeners


def _check_finite(row: Row) -> None:
    """Stops a run whose validation or test metrics aren't finite, before they are written."""
    for name in ("reconstruction", "kl"):
        value = row.get(name)
        if value is not None and not math.isfinite(value):
            raise UserError(
                f"training diverged: {name} of the {row['split']} images is {value} at step {row['step']}, though all "
                f"parameters are finite; earlier checkpoints are good: {SLOWER}"
            )


def _last_result(folder: RunFolder) -> str:
    rows = [row for row in read_rows(folder.metrics) if row["split"] != "train"]
    return describe(rows[-1]) if rows else ""
