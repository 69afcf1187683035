"""What SIGINT, SIGTERM and SIGHUP do to a command: it ends at once, or after it has saved what it has."""

import contextlib
import functools
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator

# As shells have it for SIGINT.
INTERRUPTED_STATUS = 130
# Of sysexits.h: trying again later helps.
STOPPED_STATUS = 75
_STATUSES = {signal.SIGINT: INTERRUPTED_STATUS, signal.SIGTERM: STOPPED_STATUS}
# The terminal or the connection is gone.
_HANGUP = getattr(signal, "SIGHUP", None)
if _HANGUP is not None:
    _STATUSES[_HANGUP] = STOPPED_STATUS
_STDERR = 2


def end_at_once() -> None:
    """Makes signals end this process at once, with one line: files are replaced as a whole, so none is lost.

    Python's own way, an exception, gets lost where it meets a function that a library called, a compiler for example,
    or turns into that library's error.
    """
    for number in _heard():
        signal.signal(number, functools.partial(_end, _STATUSES[number]))


def _heard() -> list[signal.Signals]:
    """All of them, but for what `nohup` has turned off."""
    return [number for number in _STATUSES if number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN]


def _end(status: int, number: int, frame: object) -> None:
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    _tell(number, "\nvae-jax: stopped; the same command starts again, or goes on from what is saved\n")
    os._exit(status)


def _tell(number: int, text: str) -> None:
    if number == _HANGUP:
        # A terminal that is gone takes nothing any more: an error at the next line, before anything is saved.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, _STDERR):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(nowhere, stream)
        os.close(nowhere)
    # Python's own writer may be in the middle of a line, and isn't reentrant.
    with contextlib.suppress(OSError):
        os.write(_STDERR, text.encode())


class StopRequest:
    """Whether somebody asked this process to stop once it has saved what it has.

    Args:
        saving: What it saves then.
        saved: What there is where it is asked twice.
    """

    def __init__(self, saving: str, saved: str) -> None:
        self.asked = False
        self._saving, self._saved = saving, saved

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Takes signals as requests meanwhile; the second one ends the process at once."""
        # Only the main thread may, and elsewhere somebody else is in charge of signals.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._take) for number in _heard()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: object) -> None:
        if self.asked:
            _tell(number, f"vae-jax: stopped at once; {self._saved}\n")
            os._exit(INTERRUPTED_STATUS)
        self.asked = True
        _tell(number, f"\nvae-jax: saving {self._saving}, then stopping; once more stops at once\n")
