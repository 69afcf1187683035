"""Work that goes on beside the training loop."""

import concurrent.futures
from collections.abc import Callable
from typing import Any


class Background:
    """One thread for pictures and checkpoints, with at most one job at a time; a context manager.

    Args:
        beside: Whether jobs run beside the caller. If not, `start` runs them at once, as processes that write a
            checkpoint together have to: their exchanges would otherwise come in different orders.
    """

    def __init__(self, beside: bool = True) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(1) if beside else None
        self._job: concurrent.futures.Future[Any] | None = None

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, *exception: object) -> None:
        """Waits for the job; its error, if there is one, only matters where no other is on its way."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)

    def start(self, job: Callable[[], object]) -> None:
        """Starts a job once the one before is done; raises what that one raised."""
        self.wait()
        if self._threads is None:
            job()
        else:
            self._job = self._threads.submit(job)

    def check(self) -> None:
        """Raises what the job has raised, if it has ended."""
        if self._job is not None and self._job.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the job is done, and raises what it raised."""
        job, self._job = self._job, None
        if job is not None:
            job.result()
