"""Rows of the GPU tables, and the clock that they are measured with."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, time
from typing import Any

import torch

from cbir.core.machine import peak_bytes

Work = Callable[[], int]  # returns how many images it did


@dataclass(frozen=True)
class Rows:
    """The file of rows, one JSON object a line: what is written stays when the process is killed.

    until : seconds since the epoch; later measurements are skipped.
    """

    path: Path
    until: float

    def write(self, table: str, *cells: Any) -> None:
        """Append a row to a table."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"table": table, "cells": [str(cell) for cell in cells]}) + "\n")

    def measure(self, table: str, labels: Sequence[Any], work: Callable[[], Sequence[Any]]) -> None:
        """Append the labels and what `work` returns; where it fails or time is up, the reason in one line."""
        if time() >= self.until:
            self.write(table, *labels, "skipped: no time left")
            return
        try:
            cells = work()
        except Exception as error:  # of any kind: the other rows are still worth their time
            lines = str(error).strip().splitlines() or [""]
            cells = [f"failed: {type(error).__name__}: {lines[0]}"[:200].replace("|", "/")]
        self.write(table, *labels, *cells)


def rate(device: str, work: Work) -> float:
    """Images/s of one call."""
    synchronise(device)
    begun = perf_counter()
    images = work()
    synchronise(device)
    return images / (perf_counter() - begun)


def repeated(device: str, seconds: float, call: Callable[[Any], Any], batches: Sequence[Any]) -> Work:
    """Work that calls `call` on the batches in turn, as often as takes `seconds`; two calls warm it up."""
    for batch in batches[:2]:
        call(batch)
    synchronise(device)
    begun = perf_counter()
    call(batches[0])
    synchronise(device)
    calls = max(2, round(seconds / (perf_counter() - begun)))

    def work() -> int:
        images = 0
        for number in range(calls):
            batch = batches[number % len(batches)]
            call(batch)
            images += len(batch)
        return images

    return work


def interleaved(device: str, rounds: int, works: dict[Any, Work]) -> dict[Any, list[float]]:
    """Images/s of each round: each round does all works, so that other load affects them alike."""
    rates: dict[Any, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            rates[name].append(rate(device, work))
    return rates


def median_ratio(rates: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(rates, reference, strict=True))


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def memory_of(device: str, work: Callable[[], object]) -> list[str]:
    """Run `work`; return the device's peaks, allocated and reserved, and the host's, in MB; "-" where not known."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    is_reset = _reset_host_peak()
    work()
    peaks = [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()] if device == "cuda" else [None, None]
    return [f"{peak / 1e6:,.0f}" if peak is not None else "-" for peak in (*peaks, peak_bytes() if is_reset else None)]


def _reset_host_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
