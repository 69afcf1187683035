"""Several processes as one run: how they find each other, and which of them writes."""

import glob
import importlib.util
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from vae_jax.errors import UserError

_SECONDS_TO_LEAVE = 1.0


def join(coordinator_address: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process part of a run of several, if there are several; to be called before any device is used.

    Explicit arguments come first, then `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`; under
    SLURM, Open MPI and on the hosts of a TPU pod JAX finds out by itself.

    Args:
        coordinator_address: `host:port` of the first process, or None.
        num_processes: How many there are, or None.
        process_id: Which this one is, from 0, or None.

    Raises:
        UserError: If only some of the three are there, or the processes don't find each other.
    """
    given = (
        coordinator_address or os.environ.get("JAX_COORDINATOR_ADDRESS") or None,
        _number(num_processes, "JAX_NUM_PROCESSES"),
        _number(process_id, "JAX_PROCESS_ID"),
    )
    if given == (None, None, None):
        if not _several_are_announced(os.environ):
            return
    elif None in given:
        raise UserError(
            "a run of several processes needs all of --coordinator_address=HOST:PORT, --num_processes and --process_id "
            f"(or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID); given are {given}"
        )
    elif given[1] is not None and given[2] is not None and not 0 <= given[2] < given[1]:
        raise UserError(f"--process_id is {given[2]} but must be from 0 to {given[1] - 1}, below --num_processes")
    if given[0] is not None:
        _check_address(given[0])
    try:
        jax.distributed.initialize(*given)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the processes of this run don't find each other ({reason}); start all of them with the same "
            "--coordinator_address=HOST:PORT and --num_processes, or unset what announces them in the environment"
        ) from error


def is_writer() -> bool:
    """Whether this is the one process that writes files and talks."""
    return jax.process_index() == 0


def together(name: str) -> None:
    """Waits until all processes are here.

    Args:
        name: Of the place; the same in all.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def end_together(name: str) -> None:
    """Waits until all processes have come to the same end, and lets the others leave before the first one.

    They abort, with a trace of the runtime, as soon as it is gone.

    Args:
        name: As in `together`.
    """
    together(name)
    if jax.process_count() > 1 and jax.process_index() == 0:
        time.sleep(_SECONDS_TO_LEAVE)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; all of them have to call this."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def leave(status: int) -> NoReturn:
    """Ends this process after an error.

    One of several goes at once: a regular end would wait minutes for the others, which wait for it in the middle of a
    step. They notice that it is gone and end too.
    """
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _number(value: int | None, variable: str) -> int | None:
    if value is not None or not os.environ.get(variable):
        return value
    try:
        return int(os.environ[variable])
    except ValueError as error:
        raise UserError(f"{variable} is '{os.environ[variable]}' but must be a whole number") from error


def _check_address(address: str) -> None:
    """Refuses an address on which the runtime would wait in silence, or crash.

    Raises:
        UserError: If it isn't `host:port` of a known host.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(
            f"--coordinator_address is '{address}' but must be HOST:PORT, with a port from 1 to 65535, e.g. "
            "--coordinator_address=localhost:12345"
        )
    try:
        socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"--coordinator_address names '{host}', which is not known here ({error.strerror})") from error


def _several_are_announced(environment: Mapping[str, str]) -> bool:
    """Whether a launcher or the machine says that this is one of several processes."""
    for count, own in (("SLURM_NTASKS", "SLURM_PROCID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")):
        # A login shell under SLURM has the first, but only a task that was started by srun has the step's nodes.
        if own in environment and environment.get(count, "1") != "1":
            return count != "SLURM_NTASKS" or "SLURM_STEP_NODELIST" in environment
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return True
    on_tpu_host = bool(glob.glob("/dev/accel*")) and importlib.util.find_spec("libtpu") is not None
    return on_tpu_host and "TPU_SKIP_MDS_QUERY" not in environment
