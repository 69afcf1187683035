"""Batches decoded ahead of time by other processes.

A batch is a function of (seed, step) alone, so a run that continues needs nothing saved of what was read before. What
runs in the decoding processes uses no JAX.
"""

import atexit
import contextlib
import dataclasses
import functools
import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from multiprocessing import resource_tracker, shared_memory
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from vae_jax.data.dataset import Labels
from vae_jax.data.order import batch_indices
from vae_jax.data.streamed import StreamedImages
from vae_jax.errors import UserError

_SECONDS_TO_CLEAN_UP = 0.2
_THREADS = min(4, os.cpu_count() or 1)

Batch = tuple[UInt8[np.ndarray, "r b h w c"], Int[np.ndarray, "r b"] | None]


def streamed_batches(
    images: StreamedImages,
    labels: Labels | None,
    seeds: tuple[int, ...],
    first_step: int,
    last_step: int,
    batch_size: int,
    columns: slice,
    num_workers: int,
    prefetch: int,
) -> Iterator[Batch]:
    """The batches of consecutive steps, decoded ahead of time.

    They are the images of `batch_indices`, bit for bit, for any number of workers. Closing the iterator (or
    dropping it) ends the workers.

    Args:
        images: Images in their files.
        labels: Their classes, or None.
        seeds: The seeds of the replicas, `r` of them, each of which has an order of its own.
        first_step: Steps taken before.
        last_step: The step to stop before.
        batch_size: Images per step and replica in the whole run.
        columns: Which of them this process has, `b` images.
        num_workers: Processes that decode; 0: threads of this one.
        prefetch: About how many batches wait decoded.

    Returns:
        Yields images `[R, B, H, W, C]` and labels `[R, B]` of each step; an image that several replicas have is decoded
        once.

    Raises:
        UserError: If an image can't be read, or a worker ends unexpectedly.
    """
    batch_of_step = _BatchOfStep(images, labels, seeds, batch_size, columns)
    batches = _decoded_ahead(batch_of_step, first_step, last_step, num_workers, prefetch)
    _open.add(batches)
    return batches


# Those that are left at the end of a program: once modules are gone Grain can't close anything any more.
_open: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()


@atexit.register
def _close_open() -> None:
    for batches in list(_open):
        batches.close()


def _decoded_ahead(
    batch_of_step: "_BatchOfStep", first_step: int, last_step: int, num_workers: int, prefetch: int
) -> Generator[Batch, None, None]:
    import grain  # here, since it takes two seconds and only images in files need it
    from absl import flags

    if not flags.FLAGS.is_parsed():
        # Grain reads flags of its own, which fails where a program doesn't use absl for its command line.
        flags.FLAGS.mark_as_parsed()

    with contextlib.ExitStack() as held:
        steps = grain.MapDataset.range(first_step, last_step)
        if num_workers:
            _start_tracker()
            function = held.enter_context(_shared(batch_of_step))
            # A worker is itself what runs ahead, and Grain keeps as many batches of each in a queue as in the parent.
            batches = steps.map(function).to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
            options = grain.MultiprocessingOptions(
                num_workers, per_worker_buffer_size=-(-prefetch // (2 * num_workers))
            )
            batches = batches.mp_prefetch(options, worker_init_fn=_start_worker)
        else:
            options = grain.ReadOptions(num_threads=min(_THREADS, prefetch), prefetch_buffer_size=prefetch)
            batches = steps.map(batch_of_step).to_iter_dataset(options)
        # The only reference, which `_close` takes away.
        iterator = [iter(batches)]
        held.callback(_close, iterator)
        with _ctrl_c_later():
            batch = _next(iterator[0])
        while batch is not None:
            yield batch
            batch = _next(iterator[0])


def _next(iterator: Iterator[Batch]) -> Batch | None:
    """The next batch, in arrays of its own: the shared memory that Grain brings it in ought to be free again soon."""
    try:
        pixels, labels = next(iterator)
        return np.array(pixels), None if labels is None else np.array(labels)
    except StopIteration:
        return None
    except UserError as error:
        problem = error
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        problem = UserError(
            f"a process that decodes images has ended ({str(error).partition('. ')[0]}), perhaps for want of memory; "
            "run the same command again to go on, with fewer --config.data.workers (0: threads instead)"
        )
    # Without the frames of Grain, which would keep shared memory in use for as long as anyone has the exception.
    raise problem.with_traceback(None)


@dataclasses.dataclass(frozen=True)
class _BatchOfStep:
    """The function that is pickled into the workers; see `streamed_batches`."""

    images: StreamedImages
    labels: Labels | None
    seeds: tuple[int, ...]
    batch_size: int
    columns: slice

    def __call__(self, step: int) -> Batch:
        seeds, steps = np.asarray(self.seeds, np.uint32), np.array([step], np.uint32)
        rows = batch_indices(seeds, steps, self.batch_size, len(self.images))[0][:, self.columns]
        once, places = np.unique(rows.ravel(), return_inverse=True)
        pixels = self.images.take(once).decode(num_threads=1)[places]
        return pixels.reshape(*rows.shape, *pixels.shape[1:]), None if self.labels is None else self.labels[rows]


def _start_tracker() -> None:
    """Starts Python's own process that clears away shared memory in the end, without its words.

    What a killed worker leaves is what it is there for; its warning would follow the error that says so.
    """
    stderr = 2
    kept = os.dup(stderr)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stderr)
        resource_tracker.ensure_running()
    finally:
        os.dup2(kept, stderr)
        os.close(kept)


@contextlib.contextmanager
def _shared(function: _BatchOfStep) -> Iterator["_Shared"]:
    """The function in shared memory.

    Python writes what a process starts with into a pipe, and waits for ever where the process dies before it has read
    more of it than a pipe holds: names of files fill many.
    """
    content = pickle.dumps(function)
    memory: Any = shared_memory.SharedMemory(create=True, size=len(content))
    try:
        memory.buf[: len(content)] = content
        yield _Shared(memory.name, len(content))
    finally:
        memory.close()
        memory.unlink()


@dataclasses.dataclass(frozen=True)
class _Shared:
    name: str
    size: int

    def __call__(self, step: int) -> Batch:
        return _loaded(self.name, self.size)(step)


@functools.lru_cache(maxsize=1)
def _loaded(name: str, size: int) -> _BatchOfStep:
    memory: Any = shared_memory.SharedMemory(name)
    try:
        return pickle.loads(bytes(memory.buf[:size]))
    finally:
        memory.close()


def _start_worker(index: int, count: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed can't close its workers, and they would wait for it for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Holds back Ctrl-C, and from processes that start meanwhile for good: it's the parent that closes them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _close(iterator: list[Any]) -> None:
    iterator.pop().close()
    # Batches that nobody asked for any more hang on Grain's iterator, which refers to itself: without this they would
    # wait for the end of the program, too late for their shared memory.
    gc.collect()
    # A thread of Grain's gives shared memory back, which must not outlive the program.
    time.sleep(_SECONDS_TO_CLEAN_UP)
