"""Exception and warning classes, and how a message offers the nearest name.

Rule for every message: what was wrong in the user's own terms, the value, what is allowed, what to do.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable

__all__ = [
    "ColumnError",
    "ConvergenceWarning",
    "DataError",
    "FileError",
    "FormulaError",
    "MissingRowsWarning",
    "MultilevelError",
    "MultilevelWarning",
    "OptionError",
    "RankWarning",
    "SingularFitWarning",
    "listing",
    "nearest",
    "users_level",
]


class MultilevelError(ValueError):
    """Base of every error this library raises on purpose."""


class FormulaError(MultilevelError):
    """A formula that cannot be read; the message shows it with a caret under the fault.

    Parameters
    ----------
    message : str
        What is wrong and what to write instead.
    formula : str, optional
        The whole formula as typed.
    start, end : int, optional
        Span of the fault in `formula`.
    """

    def __init__(
        self, message: str, formula: str = "", start: int | None = None, end: int | None = None
    ) -> None:
        self.message = message
        self.formula = formula
        self.start = start
        self.end = end
        super().__init__(message + _pointer(formula, start, end))

    def __reduce__(self) -> tuple[type[FormulaError], tuple[str, str, int | None, int | None]]:
        return (type(self), (self.message, self.formula, self.start, self.end))


class DataError(MultilevelError):
    """Data that the model cannot use: names the column, the value and the way out."""


class ColumnError(DataError):
    """A column that is not in the data; offers the nearest name."""


class OptionError(MultilevelError):
    """An argument or a value of one that is not known; lists what is allowed."""


class FileError(MultilevelError):
    """A file that cannot be read: missing, damaged, or not one of ours."""


class MultilevelWarning(UserWarning):
    """Base of every warning this library gives."""


class ConvergenceWarning(MultilevelWarning):
    """The optimum found could not be certified."""


class SingularFitWarning(MultilevelWarning):
    """A variance was estimated as zero, or a correlation as exactly one."""


class RankWarning(MultilevelWarning):
    """Columns of the fixed-effect matrix were dropped because others determine them."""


class MissingRowsWarning(MultilevelWarning):
    """Rows with missing values in the columns used were left out."""


def nearest(name: object, options: Iterable[object]) -> str:
    """Return "did you mean 'x'?" for the option closest to `name`, or "" when none is close."""
    texts = [str(option) for option in options]
    wanted = str(name)
    folded = {text.casefold(): text for text in reversed(texts)}
    found = difflib.get_close_matches(wanted.casefold(), list(folded), n=1, cutoff=0.6)
    return f"did you mean {folded[found[0]]!r}?" if found else ""


def listing(options: Iterable[object], limit: int = 8) -> str:
    """Return the options as "'a', 'b', 'c' and 4 more"."""
    items = [repr(str(option)) for option in options]
    if not items:
        return "none"
    if len(items) <= limit:
        return ", ".join(items)
    return ", ".join(items[:limit]) + f" and {len(items) - limit} more"


def users_level() -> int:
    """Return the `stacklevel` with which the calling function warns at the user's line: the first one outside the library."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    return level


def _pointer(formula: str, start: int | None, end: int | None) -> str:
    """Two lines, the formula and a caret; newlines and tabs become spaces so that the caret stays true."""
    if not formula:
        return ""
    shown = "".join(" " if char.isspace() else char for char in formula)
    if start is None:
        return f"\n  {shown}"
    first = min(max(start, 0), len(shown))
    last = min(max(end if end is not None else first + 1, first + 1), len(shown) + 1)
    window, shift = _window(shown, first, last)
    return (
        f"\n  {window}\n  {' ' * (first - shift)}{'^' * min(last - first, len(window) + 1 - (first - shift))}"
    )


def _window(shown: str, first: int, last: int, width: int = 100) -> tuple[str, int]:
    """Return the part of a very long formula around the fault, and where it begins."""
    if len(shown) <= width:
        return shown, 0
    shift = max(0, min(first - width // 2, len(shown) - width))
    return shown[shift : shift + width], shift
