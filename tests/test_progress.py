"""The text bar: drawn when asked for, silent otherwise, never in the way."""

from __future__ import annotations

import io

import pytest

from multilevel import OptionError, progress
from multilevel.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(stream: io.StringIO, show: bool | None, clock: list[float], seconds: float) -> str:
    with Progress(10, "bootstrap", show, stream) as bar:
        for _ in range(10):
            clock[0] += seconds
            bar.add()
    return stream.getvalue()


def test_asked_for_it_counts_to_the_end(clock: list[float]) -> None:
    text = run(io.StringIO(), True, clock, 0.5)
    lines = text.rstrip("\n").split("\r")[1:]
    assert lines[0].rstrip() == "bootstrap [##----------------------] 1 of 10, 0 s, 4 s left"
    assert lines[-1].rstrip() == f"bootstrap [{'#' * 24}] 10 of 10, 5 s"
    assert text.endswith("\n")
    assert len({len(line) for line in lines}) <= 2  # shorter lines cover longer ones


def test_without_being_asked_it_waits_two_seconds_on_a_terminal(clock: list[float]) -> None:
    assert run(Terminal(), None, clock, 0.1) == ""
    assert run(Terminal(), None, clock, 0.5).count("\r") == 8  # at 2.0, 2.5 ... 5.0, and the end
    assert run(io.StringIO(), None, clock, 0.5) == ""


def test_told_not_to_it_is_silent(clock: list[float]) -> None:
    assert run(Terminal(), False, clock, 5.0) == ""


def test_it_draws_at_most_ten_times_a_second(clock: list[float]) -> None:
    text = run(io.StringIO(), True, clock, 0.04)
    assert text.count("\r") == 4  # at 0.12, 0.24, 0.36, and the end


def test_long_times_are_in_minutes_and_hours(clock: list[float]) -> None:
    bar = Progress(100, "profile", False)
    bar.add(50)
    assert bar.line(100 + 90).endswith("1 min 30 s, 1 min 30 s left")
    assert bar.line(100 + 7260).endswith("2 h 1 min, 2 h 1 min left")


def test_more_steps_than_announced_leave_it_full() -> None:
    bar = Progress(2, "profile", False)
    bar.add(5)
    assert "#" * 24 + "] 5 of 2" in bar.line(bar._start + 1)


def test_an_error_passes_through_and_the_line_ends(clock: list[float]) -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress(10, "profile", True, stream) as bar:
        clock[0] += 1
        bar.add()
        raise KeyboardInterrupt
    assert stream.getvalue().endswith("\n")


def test_a_closed_stream_stops_nothing(clock: list[float]) -> None:
    stream = Terminal()
    with Progress(10, "profile", True, stream) as bar:
        stream.close()
        clock[0] += 1
        bar.add()
    assert bar.done == 1


def test_a_wrong_wish_is_refused() -> None:
    with pytest.raises(OptionError, match="progress must be True, False or None .* got 'yes'"):
        Progress(10, "profile", "yes")  # type: ignore[arg-type]
