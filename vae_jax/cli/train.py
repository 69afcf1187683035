"""`train`: a run from its config to its last checkpoint, or on from where it was."""

import contextlib
import math
import pathlib
import sys
import time
from collections.abc import Sequence

import jax
from absl import flags

from vae_jax.cli.divergence import divergence
from vae_jax.cli.flags import Flags, config_file, define_config, read_config
from vae_jax.cli.listeners import CollapseWatch, Console, Listener, MetricsFile, Row, TensorBoard, describe
from vae_jax.cli.report import write_report
from vae_jax.cli.session import Session
from vae_jax.cli.signals import StopRequest
from vae_jax.cli.terminal import say
from vae_jax.cli.trackers import TRACKERS, WeightsAndBiases, check_trackers
from vae_jax.config import Config
from vae_jax.errors import Stopped, UserError
from vae_jax.printable import one_line
from vae_jax.processes import end_together, is_writer, join
from vae_jax.provenance import command_line, program
from vae_jax.runs import RunFolder, read_rows
from vae_jax.training import Background, CheckpointDue, Interrupted


def define(values: flags.FlagValues, arguments: list[str]) -> None:
    """The flags of this verb."""
    define_config(values, arguments)
    name = pathlib.Path(config_file(arguments) or "digits").stem
    flags.DEFINE_string("workdir", f"runs/{name}", "folder of the run; made if it isn't there", flag_values=values)
    flags.DEFINE_string("init_from", None, "folder of a run whose parameters to start from", flag_values=values)
    flags.DEFINE_list("track", [], f"services that get the metrics too: {', '.join(TRACKERS)}", flag_values=values)
    flags.DEFINE_boolean("quiet", False, "print the result and warnings alone", flag_values=values)
    several = "of a run of several processes, where SLURM or the TPU pod don't say"
    flags.DEFINE_string("coordinator_address", None, f"host:port of the first process {several}", flag_values=values)
    flags.DEFINE_integer("num_processes", None, f"how many processes {several}", flag_values=values, lower_bound=1)
    flags.DEFINE_integer("process_id", None, f"which process this is, {several}", flag_values=values, lower_bound=0)


def run(values: Flags) -> None:
    """Runs the verb."""
    join(values["coordinator_address"], values["num_processes"], values["process_id"])
    train(read_config(values), pathlib.Path(values["workdir"]), values["init_from"], values["track"], values["quiet"])


def train(
    config: Config,
    workdir: pathlib.Path,
    init_from: str | None = None,
    track: Sequence[str] = (),
    quiet: bool = False,
) -> None:
    """Trains, or continues, the run in a folder.

    Args:
        config: The run.
        workdir: Its folder.
        init_from: Folder of another run whose parameters a new run starts from.
        track: Services that get the metrics too.
        quiet: Whether nothing is printed but the result and warnings.

    Raises:
        UserError: For whatever a user can mend; what was saved before stays whole.
    """
    check_trackers(track)
    folder = RunFolder(workdir)
    with contextlib.ExitStack() as held:
        session = Session.prepare(config, folder, init_from, held)
        _say_devices(session)
        _continue(session, track, quiet)


def _continue(session: Session, track: Sequence[str], quiet: bool) -> None:
    """Trains from where the session's state is."""
    folder, workdir = session.folder, session.folder.root
    start, num_steps = int(session.state.step), session.schedule.num_steps
    if is_writer():
        folder.add_to_manifest(command_line(), session.data)
        if start >= num_steps:
            say(f"{workdir} is finished: it has {start} steps, and {num_steps} are asked for. {_last_result(folder)}")
        elif start and not quiet:
            say(f"continuing {workdir} at step {start} of {num_steps}")
    if start >= num_steps:
        return
    if is_writer() and not quiet:
        say(f"{session.data}")
    began = time.perf_counter()
    last, request = None, StopRequest("a checkpoint", "the last checkpoint is whole")
    try:
        with request.heard(), contextlib.ExitStack() as opened:
            background = opened.enter_context(Background(beside=jax.process_count() == 1))
            listeners = _listeners(session, track, quiet, opened) if is_writer() else []
            for event in session.events(request):
                background.check()
                if not session.is_finite(event):
                    background.wait()
                    diverged = divergence(session, event.step)
                    end_together("diverged")
                    raise diverged
                for row in session.rows(event):
                    _check_finite(row)
                    for listener in listeners:
                        listener.write(row)
                if isinstance(event, CheckpointDue | Interrupted):
                    for listener in listeners:
                        listener.sync()
                    session.keep(event, background)
                    last = event
            background.wait()
    except OSError as error:
        raise UserError(
            f"{workdir} can't be written ({error.strerror or error}); make room, then run the same command again to "
            "continue from the last checkpoint"
        ) from error
    if last is not None and last.step < num_steps:
        raise Stopped(
            f"stopped at step {last.step} of {num_steps}, which is saved; the same command continues from there"
        )
    if is_writer():
        skipped = sum(row.get("skipped_steps", 0.0) for row in read_rows(folder.metrics) if row["split"] == "train")
        if skipped:
            say(f"{skipped:g} steps were skipped, because they weren't finite: skipped_steps in {folder.metrics}")
        say(f"{num_steps - start} steps in {time.perf_counter() - began:.1f} s. {_last_result(folder)}")
        if isinstance(last, CheckpointDue) and session.config.train.report:
            _report(session, last)
        if not quiet:
            following = "evaluate" if session.model.posterior.has_density else "reconstruct"
            say(f"everything is in {workdir}; next: {program()} {following} --workdir={workdir}")


def _report(session: Session, event: CheckpointDue) -> None:
    """Writes report.html; a run that is finished stays so if that fails."""
    try:
        write_report(session.trained(event))
    except Exception as error:
        # Whatever went wrong with a picture of the run, the run itself is sound.
        reason = one_line(error)
        again = f"{program()} report --workdir={session.folder.root}"
        print(f"report.html isn't written ({reason}); to try again: {again}", file=sys.stderr)


def _say_devices(session: Session) -> None:
    """Tells of devices that have nothing to do, and what would give them something."""
    used, present, batch_size = session.mesh.size, jax.device_count(), session.config.train.batch_size
    if is_writer() and used < present:
        below, above = batch_size // present * present, -(-batch_size // present) * present
        others = " or ".join(str(size) for size in (below, above) if size)
        say(
            f"a batch of {batch_size} runs on {used} of {present} devices, the largest number that divides it; "
            f"--config.train.batch_size={others} would use all"
        )


def _listeners(session: Session, track: Sequence[str], quiet: bool, opened: contextlib.ExitStack) -> list[Listener]:
    """What is told of each row; closed with `opened`."""
    folder, start = session.folder, int(session.state.step)
    trackers = [WeightsAndBiases(folder.root, session.config) for _ in track]
    for tracker in trackers:
        opened.callback(tracker.close)
    metrics = MetricsFile(folder.metrics, start)
    opened.callback(metrics.close)
    tensorboard = TensorBoard(folder.tensorboard, start)
    opened.callback(tensorboard.close)
    console = Console(start, session.schedule.num_steps, quiet)
    opened.callback(console.close)
    return [metrics, tensorboard, *trackers, console, CollapseWatch(read_rows(folder.metrics), console.say)]


def _check_finite(row: Row) -> None:
    """Stops a run before it writes down, or saves, what isn't finite on images that it doesn't train on."""
    for name in ("reconstruction", "kl"):
        value = row.get(name)
        if value is not None and not math.isfinite(value):
            raise UserError(
                f"training has diverged: {name} of the {row['split']} images is {value} at step {row['step']}, though "
                "all parameters are finite; earlier checkpoints are whole. Start anew with a smaller "
                "--config.train.learning_rate, with --config.train.clip_norm or with --config.train.warmup_steps"
            )


def _last_result(folder: RunFolder) -> str:
    rows = [row for row in read_rows(folder.metrics) if row["split"] != "train"]
    return describe(rows[-1]) if rows else ""
