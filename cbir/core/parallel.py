"""Parallel work that keeps the order and bounds the number of results in memory."""

import gc
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of processes that never collect the garbage of this one.

    A forked process that collects an OpenVINO model waits forever for threads that it does not have.
    """
    return ProcessPoolExecutor(workers, initializer=gc.freeze)


def ordered_map(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yield work(item) in the order of items, with at most `ahead` of them started but not yet yielded.

    Executor.map would start all items at once and hold all of their results.
    """
    source = iter(items)
    started: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(source, ahead))
    while started:
        yield started.popleft().result()
        started.extend(pool.submit(work, item) for item in islice(source, 1))
