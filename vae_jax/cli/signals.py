"""Handles SIGINT, SIGTERM and SIGHUP: a command ends at once; training saves a checkpoint first."""

import contextlib
import functools
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator

# 130 as in shells for SIGINT; 75 (EX_TEMPFAIL of sysexits.h): trying again later helps.
INTERRUPTED_STATUS, STOPPED_STATUS = 130, 75
# SIGHUP: the terminal or the connection is gone.
_STATUSES = {signal.SIGINT: INTERRUPTED_STATUS, signal.SIGTERM: STOPPED_STATUS, signal.SIGHUP: STOPPED_STATUS}


def end_at_once() -> None:
    """Makes signals end this process at once with one line; no file is lost, because files are replaced atomically.

    Python's own way, an exception, gets lost inside functions that a library calls, a compiler for example.
    """
    for number in _signals():
        signal.signal(number, functools.partial(_end, _STATUSES[number]))


def _signals() -> list[signal.Signals]:
    """The handled signals, without SIGHUP if `nohup` turned it off."""
    return [number for number in _STATUSES if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


def _end(status: int, number: int, frame: object) -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    _tell(number, "\nvae-jax: stopped; the same command starts again, or continues from what is saved\n")
    os._exit(status)


def _tell(number: int, text: str) -> None:
    if number == signal.SIGHUP:
        # Writing to a terminal that is gone fails, and would stop the run before it is saved.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(nowhere, stream)
        os.close(nowhere)
    # Python's own writer may be in the middle of a line, and can't be entered twice.
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


class StopRequest:
    """Whether a signal asked training to stop once it has saved a checkpoint."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Takes the first signal as a request meanwhile; the second one ends the process at once."""
        # Only the main thread can handle signals.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._take) for number in _signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: object) -> None:
        if self.asked:
            _tell(number, "vae-jax: stopped at once; the last checkpoint is good\n")
            os._exit(INTERRUPTED_STATUS)
        self.asked = True
        _tell(number, "\nvae-jax: saving a checkpoint, then stopping; a second signal stops at once\n")
