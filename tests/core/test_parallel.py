"""ordered_map: results in order, a bounded number of them, and exceptions that reach the caller; processes that end."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cbir.core.parallel import cores, ordered_map


def test_results_come_in_the_order_of_the_items() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 4 == 0 else 0.0)
        return item * item

    with ThreadPoolExecutor(4) as pool:
        for ahead in (1, 3, 8, 100):
            assert list(ordered_map(pool, work, range(20), ahead)) == [item * item for item in range(20)]
        assert list(ordered_map(pool, work, [], 4)) == []


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_at_most_ahead_items_are_begun_and_not_yielded(ahead: int) -> None:
    lock, taken, yielded, most = threading.Lock(), 0, 0, 0

    def items() -> Iterator[int]:
        nonlocal taken, most
        for item in range(30):
            with lock:
                taken += 1
                most = max(most, taken - yielded)
            yield item

    with ThreadPoolExecutor(8) as pool:
        for result in ordered_map(pool, lambda item: item, items(), ahead):
            with lock:
                yielded += 1
                assert result == yielded - 1
            time.sleep(0.001)  # time in which a map without bounds would run on
    assert (taken, yielded, most) == (30, 30, ahead)


def test_an_endless_source_is_read_only_as_far_as_needed() -> None:
    def endless() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield taken[-1]

    taken: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(pool, lambda item: item, endless(), 4)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 3 + 4


def test_work_runs_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=600)
    with ThreadPoolExecutor(3) as pool:
        assert len(list(ordered_map(pool, lambda _: barrier.wait(), range(6), 3))) == 6


def test_an_exception_comes_at_its_items_turn() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise KeyError("the fourth")
        return item

    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(pool, work, range(10), 6)
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError, match="the fourth"):
            next(results)


def test_an_exception_of_the_source_comes_through() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the disk is gone")

    with ThreadPoolExecutor(2) as pool, pytest.raises(OSError, match="the disk is gone"):
        list(ordered_map(pool, lambda item: item, items(), 2))


def test_cores_are_those_this_process_may_use() -> None:
    assert cores() >= 1


KILLED = """
import gc, os, signal, sys, time
from cbir.core.parallel import process_pool, small_process_pool

pools = {"forked": lambda: process_pool(3), "small": lambda: small_process_pool(3, "gc", gc.freeze)}
with pools[sys.argv[1]]() as pool:
    for _ in range(3):
        pool.submit(time.sleep, 0.2)
    pool.submit(os.getpid).result()
    print(*pool._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["forked", "small"])
def test_processes_end_with_a_parent_that_is_killed(kind: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, kind], stdout=subprocess.PIPE, text=True, timeout=600)
    assert killed.returncode == -signal.SIGKILL
    processes = killed.stdout.split()
    assert len(processes) == 3
    deadline = time.monotonic() + 600
    while any(_runs(process) for process in processes):
        assert time.monotonic() < deadline, "they outlive their parent"
        time.sleep(0.05)


def _runs(process: str) -> bool:
    """Whether the process exists and has not ended (an orphan may wait as a zombie)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
