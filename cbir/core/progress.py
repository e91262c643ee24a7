"""How far a long job has come: a bar on a terminal, a plain line now and then in a log."""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

_LINE_EVERY_S = 10.0
_RECENT_S = 30.0
_BYTE_SCALES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))


class Counter:
    """Counts units done and says in words how far that is and how fast it goes."""

    def __init__(self, total: int | None, unit: str, done: int, changed: Callable[[], None] = lambda: None) -> None:
        self.total, self.unit, self.done, self.changed = total, unit, done, changed
        self.detail: object = ""  # told after everything else, as it is at that moment
        self._before, self._began = done, monotonic()
        self._recent: deque[tuple[float, int]] = deque([(self._began, done)])

    def advance(self, n: int) -> None:
        """Count n more units."""
        self.done += n
        now = monotonic()
        self._recent.append((now, self.done))
        while self._recent[1][0] <= now - _RECENT_S:
            self._recent.popleft()
        self.changed()

    def skip(self, n: int) -> None:
        """Count n units that an earlier run did: done, but nothing to the rate."""
        self._before += n
        self._recent = deque((when, done + n) for when, done in self._recent)
        self.advance(n)

    def __str__(self) -> str:
        """For example "120.0 of 248.1 MB, 11.2 MB/s, 11 s left"; the rate is that of the last seconds, at the end the mean."""
        now = monotonic()
        seconds = now - self._began
        since, before = (self._began, self._before) if self.done == self.total else self._recent[0]
        rate = (self.done - before) / max(now - since, 1e-3)
        parts = [_amount(self.done, self.total, self.unit), _rate(rate, self.unit)]
        if self.total is None or self.done >= self.total:
            parts.append(f"{_span(seconds)} so far" if self.total is None else f"took {_span(seconds)}")
        elif rate:
            parts.append(f"{_span((self.total - self.done) / rate)} left")
        detail = str(self.detail)
        return ", ".join([*parts, detail] if detail else parts)


def progress(total: int | None, label: str, unit: str, done: int = 0) -> AbstractContextManager[Counter]:
    """Tell on stderr how far a job has come, until the block ends: `with progress(9, "embed", "images") as p: ...`.

    total : units in all, None where unknown.  unit : "B" (told as kB, MB, GB) or a plural noun such as "images".
    done : units that an earlier run already did; they count as done but not towards the rate.
    Where stderr is no terminal: at most one line every 10 seconds, and one at the end.
    """
    counter = Counter(total, unit, done)
    # isatty as well: rich takes FORCE_COLOR, which CI sets, for a terminal.
    bar = sys.stderr.isatty() and Console(stderr=True).is_interactive
    return _bar(counter, label) if bar else _lines(counter, label)


@contextmanager
def _bar(counter: Counter, label: str) -> Iterator[Counter]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Told(counter))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=counter.total, completed=counter.done)
        counter.changed = lambda: bar.update(task, completed=counter.done)
        yield counter


@contextmanager
def _lines(counter: Counter, label: str) -> Iterator[Counter]:
    told = monotonic()

    def tell_now_and_then() -> None:
        nonlocal told
        # The last unit is left to the line at the end.
        if counter.done != counter.total and monotonic() - told >= _LINE_EVERY_S:
            told = monotonic()
            tell()

    def tell() -> None:
        print(f"{label}: {counter}", file=sys.stderr, flush=True)

    counter.changed = tell_now_and_then
    try:
        yield counter
    finally:
        tell()


class _Told(ProgressColumn):
    """The counter's words, made anew at each redraw so that a stall shows."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def render(self, task: Task) -> Text:
        return Text(str(self._counter))


def _amount(done: int, total: int | None, unit: str) -> str:
    if unit == "B":
        name, scale = _byte_scale(done if total is None else total)
        numbers = [f"{n / scale:.{int(scale > 1)}f}" for n in (done, total) if n is not None]
        return f"{' of '.join(numbers)} {name}"
    return f"{' of '.join(f'{n:,}' for n in (done, total) if n is not None)} {unit}"


def _rate(rate: float, unit: str) -> str:
    if unit == "B":
        name, scale = _byte_scale(rate)
        return f"{rate / scale:.1f} {name}/s"
    return f"{rate:,.1f} {'img' if unit == 'images' else unit}/s"


def _byte_scale(n: float) -> tuple[str, float]:
    return next(((name, scale) for name, scale in _BYTE_SCALES if n >= scale), _BYTE_SCALES[-1])


def _span(seconds: float) -> str:
    """Seconds as a person says them.

    >>> _span(10.2), _span(75), _span(3700)
    ('11 s', '1 min 15 s', '1 h 01 min')
    """
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
