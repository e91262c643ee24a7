"""Progress of long jobs on stderr: a bar on a terminal, plain lines elsewhere."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from tqdm import tqdm

_REDRAW_EVERY_S = 0.1
_LINE_EVERY_S = 10.0


class Progress:
    """Counts the units that are done; its text holds the amount, the mean rate and the time left."""

    def __init__(self, total: int | None, label: str, unit: str, done: int = 0) -> None:
        self.total, self.label, self.unit, self.done = total, label, unit, done
        self.detail: object = ""  # follows the rate, as the text that it has when the line is printed
        self._skipped, self._from_cache = done, 0
        self._terminal = sys.stderr.isatty()
        self._began = self._printed = monotonic()

    def advance(self, n: int) -> None:
        """Count n more units."""
        self.done += n
        every_s = _REDRAW_EVERY_S if self._terminal else _LINE_EVERY_S
        if self.done != self.total and monotonic() - self._printed >= every_s:
            self.show()

    def skip(self, n: int) -> None:
        """Count n units from the cache: they are done but do not count towards the rate."""
        self._skipped += n
        self._from_cache += n
        self.advance(n)

    def show(self, end: str = "") -> None:
        """Redraw the bar, or print a line."""
        self._printed = monotonic()
        line = f"\r{self}\x1b[K{end}" if self._terminal else f"{self}\n"
        print(line, end="", file=sys.stderr, flush=True)

    def __str__(self) -> str:
        from_cache = f"{self._from_cache:,} from cache" if self._from_cache else ""
        text = tqdm.format_meter(
            self.done,
            self.total,
            monotonic() - self._began,
            ncols=shutil.get_terminal_size().columns if self._terminal else 0,  # 0: no bar
            prefix=self.label,
            unit="B" if self.unit == "B" else f" {self.unit}",
            unit_scale=self.unit == "B",
            initial=self._skipped,
            postfix=", ".join(filter(None, (from_cache, str(self.detail)))),
        )
        return str(text)


@contextmanager
def progress(total: int | None, label: str, unit: str, done: int = 0) -> Iterator[Progress]:
    """Show the progress of a job until the block ends: `with progress(9, "embed", "images") as bar: ...`.

    total : number of units, None if unknown.  unit : "B" (printed as kB, MB, GB) or a plural noun such as "images".
    done : units from an earlier run; they do not count towards the rate.
    Where stderr is not a terminal: at most one line every 10 seconds, and one at the end.
    """
    bar = Progress(total, label, unit, done)
    try:
        yield bar
    finally:
        bar.show(end="\n")
