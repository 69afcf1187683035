"""What SIGINT and SIGTERM do to a command: it ends at once where there is nothing to save, else after saving."""

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator

# As shells have it for SIGINT.
INTERRUPTED_STATUS = 130
# Of sysexits.h: trying again later helps.
STOPPED_STATUS = 75
_STATUSES = {signal.SIGINT: INTERRUPTED_STATUS, signal.SIGTERM: STOPPED_STATUS}
_STDERR = 2


def end_at_once() -> None:
    """Makes signals end this process at once, with one line: files are replaced as a whole, so none is lost.

    Python's own way, an exception, gets lost where it meets a function that a library called, a compiler for example,
    or turns into that library's error.
    """
    for number, status in _STATUSES.items():
        signal.signal(number, functools.partial(_end, status))


def _end(status: int, number: int, frame: object) -> None:
    # The terminal's own writer may be in the middle of a line, and isn't reentrant.
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os.write(_STDERR, b"\nvae-jax: stopped; the same command starts again, or goes on from what is saved\n")
    os._exit(status)


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
        before = {number: signal.signal(number, self._take) for number in _STATUSES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: object) -> None:
        # Written by hand, as above.
        if self.asked:
            os.write(_STDERR, f"vae-jax: stopped at once; {self._saved}\n".encode())
            os._exit(INTERRUPTED_STATUS)
        self.asked = True
        os.write(_STDERR, f"\nvae-jax: saving {self._saving}, then stopping; once more stops at once\n".encode())
