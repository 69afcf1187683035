"""Batches decoded ahead of time by other processes.

A batch is a function of (seed, step) alone, so a run that is resumed needs no saved iterator state. The code that runs
in the worker processes doesn't use JAX.
"""

import atexit
import contextlib
import dataclasses
import functools
import gc
import multiprocessing
import os
import pathlib
import pickle
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from vae_jax.data.dataset import Given
from vae_jax.data.order import batch_indices
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import UserError

_SECONDS_TO_CLEAN_UP = 0.2
_THREADS = min(4, os.cpu_count() or 1)

Batch = tuple[Shaped[np.ndarray, "r b *event"], Int[np.ndarray, "r b"] | None]


@dataclasses.dataclass(frozen=True)
class BatchReader:
    """The batches of a run as a function of the step.

    They are the images of `batch_indices`, bit for bit. An image that several replicas use is decoded once.

    Attributes:
        images: Images in their files.
        given: Class or context of each, or None.
        seeds: The seed of each of the `r` replicas; each has its own order of images.
        batch_size: Images per step and replica in the whole run.
        columns: Which of these this process loads, `b` images.
    """

    images: StreamedImages
    given: Given
    seeds: tuple[int, ...]
    batch_size: int
    columns: slice

    def __call__(self, step: int) -> Batch:
        """Images `[R, B, H, W, C]` and what is given `[R, B, ...]` of a step."""
        seeds, steps = np.asarray(self.seeds, np.uint32), np.array([step], np.uint32)
        rows = batch_indices(seeds, steps, self.batch_size, len(self.images))[0][:, self.columns]
        once, places = np.unique(rows.ravel(), return_inverse=True)
        pixels = self.images.take(once).decode(num_threads=1)[places]
        return pixels.reshape(*rows.shape, *pixels.shape[1:]), None if self.given is None else self.given[rows]


# Closed at the end of the program, while the modules that Grain needs for that still exist.
_open: weakref.WeakSet[contextlib.ExitStack] = weakref.WeakSet()


@atexit.register
def _close_open() -> None:
    for held in list(_open):
        held.close()


def streamed_batches(
    reader: BatchReader, first_step: int, last_step: int, num_workers: int, prefetch: int
) -> Generator[Batch, None, None]:
    """The batches of consecutive steps, decoded ahead of time; the same for any number of workers.

    Closing or dropping the iterator ends the workers.

    Args:
        reader: The function of the step.
        first_step: Number of steps taken before.
        last_step: The step to stop before.
        num_workers: Processes that decode; 0: threads of this process.
        prefetch: About how many decoded batches wait.

    Raises:
        UserError: If an image can't be read, or a worker ends unexpectedly.
    """
    import grain  # here, since it takes two seconds and only images in files need it
    from absl import flags

    if not flags.FLAGS.is_parsed():
        # Grain reads absl flags, which fails in programs that don't parse their command line with absl.
        flags.FLAGS.mark_as_parsed()

    with contextlib.ExitStack() as held:
        _open.add(held)
        steps = grain.MapDataset.range(first_step, last_step)
        if num_workers:
            # Python sends a new process its arguments through a pipe, and waits forever if the process dies before it
            # has read them. Thousands of file names don't fit into the pipe's buffer, so they are in a file.
            file = held.enter_context(tempfile.NamedTemporaryFile())
            pickle.dump(reader, file)
            file.flush()
            function = functools.partial(_of_file, file.name)
            # Workers run ahead by themselves. Grain queues as many batches again in the parent as in each worker.
            batches = steps.map(function).to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
            options = grain.MultiprocessingOptions(
                num_workers, per_worker_buffer_size=-(-prefetch // (2 * num_workers))
            )
            batches = batches.mp_prefetch(options, worker_init_fn=_start_worker)
        else:
            options = grain.ReadOptions(num_threads=min(_THREADS, prefetch), prefetch_buffer_size=prefetch)
            batches = steps.map(reader).to_iter_dataset(options)
        # A list, so that `_close` can drop the only reference.
        iterator = [iter(batches)]
        held.callback(_close, iterator)
        with _ctrl_c_later():
            batch = _next(iterator[0])
        while batch is not None:
            yield batch
            batch = _next(iterator[0])


def _next(iterator: Iterator[Batch]) -> Batch | None:
    """The next batch, copied out of the shared memory that Grain delivers it in."""
    try:
        pixels, given = next(iterator)
        return np.array(pixels), None if given is None else np.array(given)
    except StopIteration:
        return None
    except UserError as error:
        problem = error
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        problem = UserError(
            f"a process that decodes images has ended ({str(error).partition('. ')[0]}), perhaps for lack of memory; "
            "run the same command again to go on, with fewer --config.data.workers (0: threads instead)"
        )
    # Without Grain's frames, which would keep shared memory in use as long as the exception exists.
    raise problem.with_traceback(None)


def _of_file(path: str, step: int) -> Batch:
    return _loaded(path)(step)


@functools.lru_cache(maxsize=1)
def _loaded(path: str) -> BatchReader:
    return pickle.loads(pathlib.Path(path).read_bytes())


def _start_worker(index: int, count: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed can't close its workers, which would wait for it forever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Defers Ctrl-C. Processes started meanwhile never see it: the parent closes them."""
    # Starting Python's tracker of shared memory unblocks Ctrl-C, so it is started first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close(iterator: list[Any]) -> None:
    iterator.pop().close()
    # Unused batches belong to Grain's iterator, which is part of a reference cycle: without this, their shared memory
    # would be freed at the end of the program, which is too late.
    gc.collect()
    # One of Grain's threads frees shared memory; give it time, because that must happen before the program ends.
    time.sleep(_SECONDS_TO_CLEAN_UP)
