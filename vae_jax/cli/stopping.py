"""What a run does about SIGINT and SIGTERM: it stops between two steps, with a checkpoint."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import jax

from vae_jax.processes import any_process

_AT_ONCE_STATUS = 130
_STDERR = 2


class StopRequest:
    """Whether somebody asked this process, or another one of the run, to stop."""

    def __init__(self) -> None:
        self._asked = False

    def alone(self) -> bool:
        """Whether a process that is the only one was asked; several have to decide together."""
        return self._asked and jax.process_count() == 1

    def together(self) -> bool:
        """Whether any process of the run was asked; all of them have to call this."""
        return any_process(self._asked)

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Takes signals as requests meanwhile; the second one ends the process at once."""
        # Only the main thread may, and elsewhere somebody else is in charge of signals.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._take) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _take(self, number: int, frame: object) -> None:
        # Written by hand: the terminal's own writer may be in the middle of a line, and isn't reentrant.
        if self._asked:
            os.write(_STDERR, b"vae-jax: stopped at once; the last checkpoint is whole\n")
            os._exit(_AT_ONCE_STATUS)
        self._asked = True
        os.write(_STDERR, b"\nvae-jax: saving a checkpoint, then stopping; once more stops at once\n")
