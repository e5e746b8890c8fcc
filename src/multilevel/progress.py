"""A small text bar on the error stream, for what may take more than a moment."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from .errors import OptionError

WAIT = 2.0  # seconds before a bar that nobody asked for appears
EVERY = 0.1  # seconds between two drawings
WIDTH = 24  # characters of the bar itself


class Progress:
    """Counts steps and draws a bar: ``with Progress(total, "bootstrap", progress) as bar: bar.add(k)``.

    Parameters
    ----------
    total : int
        Steps expected. More may come; the bar then stays full.
    label : str
        What is being done, in a word or two.
    show : bool or None
        True: at once. False: never. None: after two seconds, if the error stream is a terminal.
    stream : text stream, optional
        Default `sys.stderr` of the moment the bar is made.

    Raises
    ------
    OptionError
        If `show` is anything else.
    """

    def __init__(self, total: int, label: str, show: bool | None = None, stream: TextIO | None = None) -> None:
        if show is not None and not isinstance(show, bool):
            raise OptionError(f"progress must be True, False or None (after two seconds, on a terminal), got {show!r}")
        self.total, self.label, self.done = max(int(total), 1), label, 0
        self._stream = sys.stderr if stream is None else stream
        self._wanted = _is_terminal(self._stream) if show is None else show
        self._wait = WAIT if show is None else 0.0
        self._start = self._drawn = time.monotonic()
        self._width = 0  # characters of the last line drawn

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()

    def add(self, steps: int = 1) -> None:
        """Count steps as done; draws at most ten times a second."""
        self.done += steps
        now = time.monotonic()
        if self._wanted and now - self._start >= self._wait and now - self._drawn >= EVERY:
            self._draw(now)

    def line(self, now: float) -> str:
        """The line as drawn: label, bar, counts, seconds taken and left."""
        share = min(self.done / self.total, 1.0)
        full = int(WIDTH * share)
        taken = now - self._start
        left = f", {_clock(taken * (1 - share) / share)} left" if 0 < share < 1 else ""
        bar = "#" * full + "-" * (WIDTH - full)
        return f"{self.label} [{bar}] {self.done:,} of {self.total:,}, {_clock(taken)}{left}"

    def _draw(self, now: float) -> None:
        text = self.line(now)
        self._write("\r" + text.ljust(self._width))
        self._width, self._drawn = len(text), now

    def _finish(self) -> None:
        if self._width:
            self._draw(time.monotonic())
            self._write("\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # a closed stream stops no computation
            self._wanted = False


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # None under pythonw, or closed
        return False


def _clock(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
