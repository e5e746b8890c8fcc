"""What a user writes about the residuals, read, and made ready on the rows of a design."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .contrasts import Coded, Contrast
from .errors import DataError, OptionError, nearest
from .residuals import FITTED, Residual, Serial, Spread

if TYPE_CHECKING:
    import pandas as pd

    from .design import Design

__all__ = ["ResidualText", "columns_of", "new_multipliers", "on_rows", "prepare", "read"]

_PIECE = re.compile(r"\s*([A-Za-z_]\w*)\s*\((.*)\)\s*$", re.DOTALL)
_OTHERS = {  # what people who come from nlme, glmmTMB or brms type
    "corar1": "ar1", "corcar1": "car1", "ou": "car1", "corexp": "car1", "exp": "car1", "ar": "ar1",
    "varident": "ident", "varpower": "power", "varexp": "exp",
}  # fmt: skip
SERIAL = ("ar1", "car1")
SHORT, LONG = 0.026, 1e4  # lags at which a correlation over one is 0, or 1, to too many digits
SPREADS = ("ident", "power", "exp")


@dataclass(frozen=True)
class ResidualText:
    """Structure of the residuals as typed.

    ``serial`` is (kind, time or None, group columns, text); ``spreads`` are (kind, columns, text).
    """

    serial: tuple[str, str | None, tuple[str, ...], str] | None
    spreads: tuple[tuple[str, tuple[str, ...], str], ...]

    def __bool__(self) -> bool:
        return self.serial is not None or bool(self.spreads)

    def columns(self) -> dict[str, str]:
        """Columns it needs, each with the text it stands in."""
        out: dict[str, str] = {}
        if self.serial is not None:
            out |= {name: self.serial[3] for name in self.serial[2]}
            if self.serial[1] is not None:
                out[self.serial[1]] = self.serial[3]
        for _, columns, text in self.spreads:
            out |= {name: text for name in columns if name != FITTED}
        return out


def read(correlation: Any, variance: Any) -> ResidualText:
    """Read ``correlation="ar1(week | id)"`` and ``variance="ident(sex) + power(age)"``.

    Raises
    ------
    OptionError
        With what is allowed, where the text is none of these.
    """
    serial = None if correlation is None else _serial(correlation)
    if variance is None:
        return ResidualText(serial, ())
    pieces = [variance] if isinstance(variance, str) else variance
    if not isinstance(pieces, Sequence) or not all(isinstance(p, str) for p in pieces):
        raise OptionError(
            f"variance must be text such as 'ident(sex)' or 'power(age)', or a list of these, got {variance!r}"
        )
    parts = [part for piece in pieces for part in _split(piece)]
    spreads = tuple(_spread(part) for part in parts)
    for i, (kind, columns, text) in enumerate(spreads):
        if (kind, columns) in [(k, c) for k, c, _ in spreads[:i]]:
            raise OptionError(f"the variance function {text!r} stands twice; leave one out")
    return ResidualText(serial, spreads)


def _split(text: str) -> list[str]:
    """Pieces between the + signs."""
    return [part.strip() for part in re.split(r"\+(?![^()]*\))", text)]


def _piece(text: Any, what: str, known: tuple[str, ...], example: str) -> tuple[str, str]:
    found = _PIECE.match(text) if isinstance(text, str) else None
    if found is None:
        raise OptionError(f"{what} {text!r} cannot be read; write it as {example}")
    name = found[1].lower()
    if name not in known:
        other = _OTHERS.get(name)
        hint = f"did you mean {other!r}?" if other in known else nearest(name, known)
        has = ", ".join(k + "()" for k in known)
        raise OptionError(f"{what} {found[1]}() is not available; there are {has}{hint and '; '}{hint}")
    return name, found[2]


def _serial(text: Any) -> tuple[str, str | None, tuple[str, ...], str]:
    kind, inside = _piece(
        text, "the correlation", SERIAL, "'ar1(week | subject)', or 'ar1(1 | subject)' for rows in their order"
    )
    sides = inside.split("|")
    if len(sides) != 2 or not sides[0].strip() or not sides[1].strip():
        raise OptionError(
            f"the correlation {text!r} needs a time and a group: '{kind}(time | group)'; 1 stands "
            f"for the order of the rows"
        )
    time = _names(sides[0], text)
    groups = _names(sides[1], text)
    if len(time) != 1:
        raise OptionError(f"the correlation {text!r} needs one column of times, or 1 for the order of the rows")
    if time[0] == "1" and kind == "car1":
        raise OptionError(
            f"{text!r} has no times; car1() needs a column of them. For rows in their order use ar1(1 | group)"
        )
    return kind, None if time[0] == "1" else time[0], groups, " ".join(text.split())


def _spread(text: str) -> tuple[str, tuple[str, ...], str]:
    kind, inside = _piece(text, "the variance function", SPREADS, "'ident(sex)', 'power(age)' or 'exp(age)'")
    columns = _names(inside, text)
    if kind != "ident" and len(columns) != 1:
        raise OptionError(f"the variance function {text!r} takes one column of numbers")
    return kind, columns, " ".join(text.split())


def _names(text: str, whole: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(":")]
    names = [name[1:-1] if len(name) > 2 and name[0] == name[-1] == "`" else name for name in names]
    if not all(names) or any(ch in name for name in names for ch in "()~|"):
        raise OptionError(
            f"{whole!r} needs names of columns (a:b for combinations of two); make other columns in the data first"
        )
    return tuple(names)


# -- on the rows of a design -------------------------------------------------------------------------------------------


def columns_of(text: ResidualText, data: Any) -> dict[str, pd.Series[Any]]:
    """Copies of the columns that the residuals' structure needs, all rows."""
    if not text.columns():
        return {}
    return {name: one.copy() for name, one in frame.Table(data).load(list(text.columns()), text.columns()).items()}


def on_rows(
    text: ResidualText, series: Mapping[str, pd.Series[Any]], design: Design, levels: Mapping[str, Any] | None = None
) -> Residual:
    """The residuals' structure on the rows of a design, from its columns on all rows."""
    rows = {name: one.iloc[design.rows].reset_index(drop=True) for name, one in series.items()}
    return prepare(text, rows, design, levels)


def prepare(
    text: ResidualText, series: Mapping[str, pd.Series[Any]], design: Design, levels: Mapping[str, Any] | None = None
) -> Residual:
    """The structure on the rows used; `series` are those rows of its columns, `levels` the user's orders of levels.

    Raises
    ------
    DataError
        For times that repeat, are no numbers or (ar1) no whole ones, a covariate of zero under a power, and the like.
    """
    serial = None if text.serial is None else _prepare_serial(text.serial, series, design)
    return Residual(serial, tuple(_prepare_spread(s, series, design, levels) for s in text.spreads))


def _codes(
    names: tuple[str, ...], series: Mapping[str, pd.Series[Any]], levels: Mapping[str, Any] | None = None
) -> tuple[NDArray[np.int32], list[str]]:
    """Codes and labels of a combination of columns; `levels` says their order where the user did."""
    parts = [frame.factor(series[name], name) for name in names]
    for i, name in enumerate(names):
        if levels and name in levels:
            coded = Coded(name, parts[i][0], parts[i][1].tolist(), Contrast()).ordered_as(list(levels[name]))
            labels = np.empty(len(coded.levels), dtype=object)
            labels[:] = coded.levels
            parts[i] = coded.codes, labels
    if len(parts) == 1:
        return parts[0][0], [frame.label_text(label) for label in parts[0][1].tolist()]
    codes, table = frame.combine([c for c, _ in parts], [len(levels) for _, levels in parts])
    texts = [[frame.label_text(label) for label in levels.tolist()] for _, levels in parts]
    return codes, [":".join(t[c] for t, c in zip(texts, row, strict=True)) for row in table.tolist()]


def _prepare_serial(
    serial: tuple[str, str | None, tuple[str, ...], str], series: Mapping[str, pd.Series[Any]], design: Design
) -> Serial:
    kind, time, groups, text = serial
    codes, labels = _codes(groups, series)
    n = len(codes)
    times = np.arange(n, dtype=np.float64) if time is None else _times(series[time], time, kind, text)
    order = np.lexsort((times, codes))
    later = np.r_[False, codes[order][1:] == codes[order][:-1]] if n else np.zeros(0, dtype=bool)
    if not later.any():
        raise DataError(f"no group of {text} has two rows, so there is nothing to correlate; use a coarser group")
    previous, lag = np.full(n, -1, dtype=np.int64), np.zeros(n)
    previous[order[later]] = order[:-1][later[1:]]
    lag[order[later]] = 1.0 if time is None else (times[order][1:] - times[order][:-1])[later[1:]]
    twins = np.flatnonzero((previous >= 0) & (lag <= 0))
    if len(twins):
        i = int(twins[0])
        name = ":".join(groups)
        raise DataError(
            f"{name} {labels[codes[i]]} has two rows at {time} {times[i]:g} (rows {int(design.rows[previous[i]])} and "
            f"{int(design.rows[i])}, counting from 0), but {text} needs different times within a group; correct "
            f"them, or name a "
            f"finer group such as {name}:other"
        )
    if kind == "ar1":
        step = float(math.gcd(*{int(one) for one in lag[previous >= 0]}))
        return Serial(kind, text, ":".join(groups), time, previous, lag / step, step, step)
    unit, over = _units(lag[previous >= 0])
    return Serial(kind, text, ":".join(groups), time, previous, lag / unit, unit, over)


def _units(lag: NDArray[np.float64]) -> tuple[float, float]:
    """Lags over which the search and the report take a correlation: the median, and one where that says something.

    A correlation of 0.1 over the shortest lag must not vanish to all digits over the lag of the report: 1e-308 over one is
    1e-8 over `SHORT`.
    """
    unit, least = float(np.median(lag)), float(np.min(lag))
    if least >= SHORT and unit <= LONG:
        return unit, 1.0
    return unit, unit if least >= SHORT * unit else least


def _times(series: pd.Series[Any], name: str, kind: str, text: str) -> NDArray[np.float64]:
    what = frame.column_kind(series, name)
    if what != "number":
        if hasattr(series, "cat") and series.cat.ordered and kind == "ar1":
            return np.asarray(series.cat.codes, dtype=np.float64)
        raise DataError(
            f"{text} needs times, but {name!r} holds {what}, whose order and distances are not known; give a "
            f"column of numbers"
            + (" or an ordered categorical" if kind == "ar1" else "")
            + ", or 1 for the order of the rows"
        )
    times = frame.numbers(series, name)
    if not np.isfinite(times).all():
        first = float(times[~np.isfinite(times)][0])
        raise DataError(f"{text} needs finite times, but {name!r} holds {first:g}; correct these rows")
    if kind == "ar1" and not np.array_equal(times, np.round(times)):
        first = float(times[times != np.round(times)][0])
        raise DataError(
            f"{text} counts whole steps of time, but {name!r} holds {first:g}; use car1({name} | ...) for times "
            f"of any distance, or "
            "ar1(1 | ...) for the order of the rows"
        )
    return np.asarray(times, dtype=np.float64)


def _prepare_spread(
    spread: tuple[str, tuple[str, ...], str],
    series: Mapping[str, pd.Series[Any]],
    design: Design,
    levels: Mapping[str, Any] | None,
) -> Spread:
    kind, columns, text = spread
    name = ":".join(columns)
    if kind == "ident":
        codes, labels = _codes(columns, series, levels)
        if len(labels) < 2:
            raise DataError(f"{text} needs two levels or more, but {name!r} has one in the rows used; leave it out")
        return Spread(kind, text, name, codes, tuple(labels))
    if name == FITTED:
        return Spread(kind, text, FITTED, covariate=False)
    what = frame.column_kind(series[name], name)
    if what != "number":
        raise frame.not_numeric(series[name], name, what, text, design.rows, "use ident() for a variance per level")
    return Spread(kind, text, name, basis=basis(kind, frame.numbers(series[name], name), name, text, design.rows))


def basis(kind: str, x: NDArray[np.float64], name: str, text: str, rows: NDArray[Any]) -> NDArray[np.float64]:
    """What the parameter multiplies in log sd."""
    check_covariate(kind, x, name, text, rows)
    out = np.log(np.abs(x)) if kind == "power" else x
    if np.ptp(out) == 0:
        raise DataError(f"{text} needs {name} to vary, but it is {x[0]:g} in every row used; leave it out")
    return np.asarray(out, dtype=np.float64)


def check_covariate(kind: str, x: NDArray[np.float64], name: str, text: str, rows: NDArray[Any]) -> None:
    """Refuse values that have no finite power; `rows` are their numbers in the data."""
    bad = np.flatnonzero(~np.isfinite(x) | ((x == 0) & (kind == "power")))
    if len(bad):
        raise DataError(
            f"{text} needs {name} to be {'finite and other than zero' if kind == 'power' else 'finite'}, but it "
            f"is {x[bad[0]]:g} in "
            f"row {int(rows[bad[0]])} (counting from 0); use exp({name}), or shift the column"
        )


# -- on new rows ---------------------------------------------------------------------------------------------------------


def new_multipliers(
    residual: Residual, values: NDArray[np.float64], new: Any, keep: NDArray[Any], fitted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(m,) residual sd, relative to sigma, of the complete rows `keep` of new data; `values` are the fit's parameters.

    NaN where a row misses what its variance depends on.

    Raises
    ------
    DataError
        For a level that was not fitted, a column that is missing, or a covariate of zero under a power.
    """
    out = np.zeros(len(keep))
    at = 0
    for s in residual.spreads:
        part = values[at : at + s.n]
        at += s.n
        if s.kind == "ident":
            out += np.r_[0.0, np.log(part), np.nan][_known_levels(s, new, keep)]
        elif s.column == FITTED and not s.covariate:
            out += part[0] * (np.log(np.maximum(np.abs(fitted), 1e-300)) if s.kind == "power" else fitted)
        else:
            series = frame.Table(new).load([s.column], {s.column: s.text})[s.column]
            x = frame.numbers(series, s.column)[keep]
            known = ~np.isnan(x)
            check_covariate(s.kind, x[known], s.column, s.text, keep[known])
            out += part[0] * (np.log(np.abs(x)) if s.kind == "power" else x)
    return np.exp(out)


def _known_levels(s: Spread, new: Any, keep: NDArray[Any]) -> NDArray[Any]:
    names = tuple(s.column.split(":"))
    loaded = frame.Table(new).load(list(names), dict.fromkeys(names, s.text))
    series = {name: one.iloc[keep].reset_index(drop=True) for name, one in loaded.items()}
    codes, labels = _codes(names, series)
    known = {level: i for i, level in enumerate(s.levels)}
    strange = [label for label in labels if label not in known]
    if strange:
        raise DataError(
            f"{s.text} has no variance for {strange[0]!r} of {s.column!r}, which did not occur when fitting; "
            f"allowed are {', '.join(s.levels)}"
        )
    at = [*(known[label] for label in labels), len(s.levels)]  # the last: a missing level
    return np.array(at, dtype=np.intp)[codes]
