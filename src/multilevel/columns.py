"""What each column of a formula is used as: a number, a factor with levels and contrast, or both.

`learn` decides it on the data fitted, `recall` obeys it on new data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .contrasts import Coded, Contrast, as_contrast
from .errors import DataError, OptionError, listing, nearest
from .expressions import Expression

if TYPE_CHECKING:
    import pandas as pd

    from .matrix import Columns

__all__ = ["ColumnInfo", "Use", "learn", "recall", "uses_of"]


@dataclass
class Use:
    """How a formula uses a column.

    Attributes
    ----------
    bare : bool
        By itself, so numeric or factor as its values say.
    numeric : bool
        In arithmetic.
    wrapped : bool
        As `C(x)`.
    where : str
        An expression it stands in, for messages.
    """

    bare: bool = False
    numeric: bool = False
    wrapped: bool = False
    where: str = ""


@dataclass(frozen=True)
class ColumnInfo:
    """What a column was when the model was fitted.

    Attributes
    ----------
    number : bool
        Its values enter as numbers.
    levels : list or None
        Levels where it enters as a factor.
    contrast : Contrast
        Their coding.
    """

    number: bool
    levels: list[Any] | None = None
    contrast: Contrast = field(default_factory=Contrast)


def uses_of(expressions: Iterable[Expression]) -> dict[str, Use]:
    """Gather the uses of every column."""
    out: dict[str, Use] = {}
    for expression in expressions:
        for name in expression.columns:
            use = out.setdefault(name, Use(where=expression.text))
            use.bare |= expression.plain
            use.numeric |= name in expression.numeric
            use.wrapped |= name in expression.wrapped
    return out


def learn(
    series: Mapping[str, pd.Series[Any]],
    uses: Mapping[str, Use],
    rows: NDArray[np.int64],
    levels: Mapping[str, Any],
    contrasts: Mapping[str, Any],
) -> tuple[Columns, dict[str, ColumnInfo]]:
    """Make the columns of the data fitted, and remember what they are."""
    from .matrix import Columns

    out = Columns(len(rows), {}, rows)
    infos: dict[str, ColumnInfo] = {}
    for name, use in uses.items():
        one = series[name]
        kind = frame.column_kind(one, name)
        number = _is_number(one, name, kind, use, name in levels, rows)
        coded = None
        if use.wrapped or not number:
            codes, labels = frame.factor(one, name)
            default = Contrast("poly" if kind == "ordered" else "treatment")
            contrast = as_contrast(contrasts[name], name) if name in contrasts else default
            coded = Coded(name, codes, labels.tolist(), contrast)
            coded = coded.ordered_as(list(levels[name])) if name in levels else coded
        infos[name] = ColumnInfo(
            number, coded.levels if coded else None, coded.contrast if coded else Contrast()
        )
        _store(out, name, one, infos[name], coded)
    for name in contrasts:
        if name not in infos or infos[name].levels is None:
            allowed = [known for known, info in infos.items() if info.levels is not None]
            raise OptionError(
                f"contrasts names {name!r}, which is no factor of the model"
                + (f"; write C({name}) in the formula" if name in infos else "")
                + f"; its factors are {listing(allowed)} {nearest(name, allowed)}".rstrip()
            )
    return out, infos


def _is_number(
    series: pd.Series[Any], name: str, kind: str, use: Use, has_levels: bool, rows: NDArray[np.int64]
) -> bool:
    """Whether the column enters as numbers; refuses text and dates where numbers are needed."""
    numeric = kind in ("number", "bool")
    if use.numeric and (not numeric or (has_levels and use.bare)):
        if numeric:
            raise OptionError(
                f"levels names {name!r}, which is also used as a number; write C({name}) where it is a factor"
            )
        raise frame.not_numeric(series, name, kind, use.where, rows)
    if use.bare and kind == "date":
        raise frame.not_numeric(series, name, kind)
    return use.numeric or (use.bare and numeric and not has_levels)


def _store(out: Columns, name: str, series: pd.Series[Any], info: ColumnInfo, coded: Coded | None) -> None:
    if info.number:
        out.values[name] = frame.numbers(series, name)
        if coded is not None:
            out.raw[name] = series
            out.coded[name] = coded
    else:
        out.values[name] = coded


def recall(
    series: Mapping[str, pd.Series[Any]],
    names: Sequence[str],
    infos: Mapping[str, ColumnInfo],
    rows: NDArray[np.int64],
) -> Columns:
    """Make the columns of new data; a level never seen is an error."""
    from .matrix import Columns

    out = Columns(len(rows), {}, rows)
    for name in names:
        info, one = infos[name], series[name]
        coded = None
        if info.levels is not None:
            known = np.empty(len(info.levels), dtype=object)
            known[:] = info.levels
            codes, unknown = frame.lookup(one, name, known)
            if len(unknown):
                row = int(rows[int(np.flatnonzero(codes == -2)[0])])
                shown = frame.label_text(unknown[0])
                raise DataError(
                    f"column {name!r} has the value {shown!r} (row {row}, counting from 0), which did not "
                    f"occur when fitting; allowed are {listing(map(frame.label_text, info.levels), 20)}"
                )
            coded = Coded(name, codes, info.levels, info.contrast)
        if info.number:
            kind = frame.column_kind(one, name)
            if kind not in ("number", "bool"):
                raise frame.not_numeric(one, name, kind, rows=rows)
        _store(out, name, one, info, coded)
    return out
