"""Work spread over threads with the order kept and a bounded number of results in flight."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int) -> Iterator[Result]:
    """Yield work(item) in the order of items, with at most `ahead` items begun and not yet yielded.

    Unlike Executor.map, which begins every item at once, this holds a bounded number of results in memory.
    """
    source = iter(items)
    begun: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(source, ahead))
    while begun:
        yield begun.popleft().result()
        begun.extend(pool.submit(work, item) for item in islice(source, 1))
