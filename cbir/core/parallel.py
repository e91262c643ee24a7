"""Parallel work that keeps the order and bounds the number of results in memory."""

import gc
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from itertools import islice
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of forked processes, which end when this one does, even when it is killed."""
    return ProcessPoolExecutor(workers, initializer=_begin_process)


def small_process_pool(workers: int, module: str, prepare: Callable[[], None]) -> ProcessPoolExecutor:
    """Return a pool of processes that share nothing with this one, and start with its first work.

    To fork a process that has an encoder open takes 0.1 s for each (measured), and a fork has the GPU open too; these are
    forked from a server that has imported the main module and `module`.  prepare : called once in each process, of `module`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", module])
    return ProcessPoolExecutor(workers, context, _begin_process, (prepare,))


def _begin_process(prepare: Callable[[], None] | None = None) -> None:
    gc.freeze()  # a forked process that collects an OpenVINO model waits forever for threads that it does not have
    Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()


def _end_with_parent() -> None:
    """End a process that would wait for work forever, because its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def ordered_map(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yield work(item) in the order of items, with at most `ahead` of them started but not yet yielded.

    Executor.map would start all items at once and hold all of their results.
    """
    source = iter(items)
    started: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(source, ahead))
    while started:
        yield started.popleft().result()
        started.extend(pool.submit(work, item) for item in islice(source, 1))
