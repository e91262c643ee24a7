"""Pixels for a GPU: processes decode and resize images into batches whose memory they share with this process.

A GPU takes more images than threads can prepare: a quarter of the time that a small image takes holds the interpreter's lock
(measured), and pixels that came back through a pipe would hold it as well.
"""

import ctypes
import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.sharedctypes import RawArray
from time import perf_counter
from types import TracebackType
from typing import Any

import numpy as np

from cbir.core.errors import DataError
from cbir.core.parallel import small_process_pool
from cbir.encoders.preprocessing import Pixels, Preprocessing

BATCHES = 6  # that exist at once, whatever the number of processes: being filled, waiting for the GPU, and there
_CHUNK_IMAGES = 16  # of a batch, prepared by one process: many chunks of few images keep all of them busy until the end


@dataclass(frozen=True)
class Started:
    """A batch that the processes prepare.

    place : of its memory.  rows : how many images.  chunks : seconds that each chunk took.
    """

    place: int
    rows: int
    chunks: Sequence[Future[float]]


class Preparation(AbstractContextManager["Preparation"]):
    """The processes, and the memory of `BATCHES` batches."""

    def __init__(self, preprocessing: Preprocessing, processes: int, batch_images: int) -> None:
        shape = (BATCHES, batch_images, *preprocessing.blank(0).shape[1:])
        memory = RawArray(ctypes.c_ubyte, math.prod(shape))
        self._pixels = _pixels(memory, shape)
        self._free = deque(range(BATCHES))
        self._processes = small_process_pool(processes, __name__, partial(_share, preprocessing, memory, shape))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._processes.shutdown(cancel_futures=True)

    def start(self, images: Sequence[bytes]) -> Started:
        """Start to prepare a batch of packed images.  At most `BATCHES` may be started and not released."""
        place, firsts = self._free.popleft(), range(0, len(images), _CHUNK_IMAGES)
        with _killed_in_one_line():
            chunks = [
                self._processes.submit(_prepare, place, first, images[first : first + _CHUNK_IMAGES])
                for first in firsts
            ]
        return Started(place, len(images), chunks)

    def wait(self, batch: Started) -> tuple[Pixels, float]:
        """The pixels of a batch, uint8 (n, crop_px, crop_px, 3), until it is released, and the seconds of the processes.

        Raises DataError when a process was killed, and what decoding raises.
        """
        with _killed_in_one_line():
            seconds = sum(chunk.result() for chunk in batch.chunks)
        return self._pixels[batch.place, : batch.rows], seconds

    def release(self, batch: Started) -> None:
        """Give the memory of a batch to a later one."""
        self._free.append(batch.place)


@contextmanager
def _killed_in_one_line() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise DataError(
            "expected the processes that decode images to run, found one killed, perhaps for want of memory; set a smaller "
            "device.workers or device.batch_images, then run `dvc repro` again"
        ) from error


# ---- in the processes

_shared: tuple[Preprocessing, Pixels]


def _share(preprocessing: Preprocessing, memory: Any, shape: Sequence[int]) -> None:
    global _shared
    _shared = preprocessing, _pixels(memory, shape)


def _pixels(memory: Any, shape: Sequence[int]) -> Pixels:
    return np.frombuffer(memory, np.uint8).reshape(shape)


def _prepare(place: int, first: int, images: Sequence[bytes]) -> float:
    """Prepare images into the rows from `first`; return the seconds it took."""
    begun = perf_counter()
    preprocessing, pixels = _shared
    for row, image in enumerate(images, first):
        pixels[place, row] = preprocessing.prepare_packed(image)
    return perf_counter() - begun
