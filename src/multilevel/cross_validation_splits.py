"""Folds from a splitter, such as those of scikit-learn, or from pairs of row numbers: read, checked, told what is wrong.

Nothing here imports scikit-learn: a splitter is whatever has `split`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .cross_validation_folds import Folds, column_codes, labels_of
from .errors import DataError, MultilevelError, OptionError
from .frame import Table, factor

if TYPE_CHECKING:
    from .model import Model

__all__ = ["folds_of_splits", "holds_splits", "is_splitter"]

Index = NDArray[np.int64]
Grouping = tuple[str, Index, NDArray[Any]]  # name, codes of the rows used, levels


def is_splitter(leave: Any) -> bool:
    """Whether `leave` makes folds by its own method `split`."""
    return callable(getattr(leave, "split", None)) and not isinstance(leave, (str, bytes))


def holds_splits(leave: Any) -> bool:
    """Whether a sequence holds (train, test) pairs of row numbers; one label for each row is the other thing it may hold."""
    return isinstance(leave, (list, tuple)) and (
        not leave or any(_is_pair(one) or (isinstance(one, np.ndarray) and one.ndim == 1) for one in leave)
    )


def _is_pair(one: Any) -> bool:
    return isinstance(one, (list, tuple)) and len(one) == 2 and all(np.ndim(part) == 1 for part in one)


def folds_of_splits(model: Model, leave: Any, groups: Any) -> Folds:
    """Folds from a splitter or from pairs of row numbers.

    Parameters
    ----------
    model : Model
        A splitter sees the rows that it uses; pairs count the rows of its data.
    leave : splitter, or sequence of (train, test)
    groups : str, (n_input,) labels or None
        What a splitter keeps together, and joint scores are of; default the outermost grouping factor of the model.

    Raises
    ------
    OptionError, DataError
        For a splitter that fails, pairs that are none, rows out of range, named twice, fitted and left out at once, left out
        in several folds, or used in no fold.
    """
    rows, n = model.design.rows, model.design.n_input
    grouping = _grouping(model, groups)
    if is_splitter(leave):
        given, count, of = _split(leave, model, grouping), len(rows), "the rows used"
        place = np.arange(count)
    else:
        given, count, of = leave, n, "the rows of the data"
        place = np.full(n, -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
    if not given:
        raise OptionError("leave has no folds; give at least one (train, test) pair of row numbers")
    pairs = []
    for k, one in enumerate(given, 1):
        if not _is_pair(one):
            single = "; a single fold is written [(train, test)]" if _is_pair(leave) else ""
            raise OptionError(f"fold {k} of leave is no (train, test) pair of row numbers; got {_shown(one)}{single}")
        train, test = (
            _row_numbers(part, count, f"{name} of fold {k}", of) for part, name in zip(one, _PARTS, strict=True)
        )
        both = np.intersect1d(train, test)
        if len(both):
            raise OptionError(
                f"fold {k} fits row {both[0]} and leaves it out{_more(both)}; a score of a row that was fitted says nothing"
            )
        pairs.append([part[part >= 0] for part in (place[train], place[test])])
    return _folds(rows, pairs, grouping)


_PARTS = ("the train rows", "the test rows")


def _row_numbers(part: Any, count: int, where: str, of: str) -> Index:
    """(m,) positions, from row numbers or a mask."""
    values = np.asarray(part)
    if values.dtype.kind == "b":
        if len(values) != count:
            raise DataError(f"{where} are a mask of {len(values)} values for {count} rows")
        values = np.flatnonzero(values)
    if not len(values):
        raise OptionError(f"{where} are empty; each fold needs rows to fit and rows to leave out")
    if values.dtype.kind not in "iu":
        raise OptionError(f"{where} must be row numbers, counting from 0; got {values.ravel()[0].item()!r}")
    values = values.astype(np.int64)
    bad = values[(values < 0) | (values >= count)]
    if len(bad):
        raise OptionError(f"{where} name row {bad[0]}, but {of} are 0 to {count - 1}")
    unique, times = np.unique(values, return_counts=True)
    if len(unique) < len(values):
        raise OptionError(f"{where} name row {unique[times > 1][0]} twice")
    return values


def _folds(rows: Index, pairs: Sequence[Sequence[Index]], grouping: Grouping | None) -> Folds:
    """Folds of positions among the rows used, each left out once at most."""
    fold = np.full(len(rows), -1, dtype=np.int64)
    used = np.zeros(len(rows), dtype=bool)
    for k, (train, test) in enumerate(pairs):
        for part, name in zip((train, test), _PARTS, strict=True):
            if not len(part):
                raise DataError(
                    f"{name} of fold {k + 1} hold no row that the model uses; missing values leave rows out"
                )
        again = test[fold[test] >= 0]
        if len(again):
            raise OptionError(
                f"row {rows[again[0]]} is left out in fold {fold[again[0]] + 1} and in fold {k + 1}{_more(again)}; each row "
                "has one score, so folds must not overlap (KFold rather than RepeatedKFold or ShuffleSplit)"
            )
        fold[test] = k
        used[train] = used[test] = True
    if not used.all():
        lost = np.flatnonzero(~used)
        raise OptionError(
            f"row {rows[lost[0]]} is in no fold, neither to fit nor to leave out{_more(lost)}; leave these rows out of the "
            "data, or put them into the train rows of a fold"
        )
    fitted = tuple(np.sort(train) for train, _ in pairs)
    unit, units, what = _units(fold, grouping)
    return Folds(rows, fold, unit, units, what, tuple(range(1, len(pairs) + 1)), fitted)


def _units(fold: Index, grouping: Grouping | None) -> tuple[Index, tuple[Any, ...], str]:
    """Groups have joint scores where whole groups were left out; else rows stand one by one."""
    none = np.full(len(fold), -1, dtype=np.int64)
    if grouping is None:
        return none, (), "rows"
    name, codes, levels = grouping
    lowest, highest = np.full(len(levels), len(fold)), np.full(len(levels), -1)
    np.minimum.at(lowest, codes, fold)
    np.maximum.at(highest, codes, fold)
    out = np.flatnonzero((lowest == highest) & (highest >= 0))
    if not np.isin(codes[fold >= 0], out).all() or (np.bincount(codes)[out] == 1).all():
        return none, (), "rows"
    place = np.full(len(levels), -1, dtype=np.int64)
    place[out] = np.arange(len(out))
    return place[codes], tuple(levels[out].tolist()), name


# -- splitters --------------------------------------------------------------------------------------------------------


def _grouping(model: Model, groups: Any) -> Grouping | None:
    """What is kept together: a column, labels of the rows, or the model's outermost grouping factor."""
    if groups is None:
        return column_codes(model, "groups") if model.design.terms else None
    if isinstance(groups, str):
        return column_codes(model, groups, "groups")
    series = labels_of(groups, model.design.n_input, "groups", "the group")
    codes, levels = factor(series.iloc[model.design.rows].reset_index(drop=True), "groups")
    if (codes < 0).any():
        row = int(model.design.rows[np.flatnonzero(codes < 0)[0]])
        raise DataError(
            f"groups has no label for row {row} (counting from 0), so that row belongs to no group; fill it"
        )
    return "groups", codes.astype(np.int64), levels


def _split(splitter: Any, model: Model, grouping: Grouping | None) -> list[Any]:
    """What the splitter makes of the rows that the model uses."""
    import pandas as pd

    if isinstance(splitter, type):
        raise OptionError(f"leave is the class {splitter.__name__}; give a splitter made of it: {splitter.__name__}()")
    rows, table = model.design.rows, Table(model.data)
    once = [name for name in table.names if table.names.count(name) == 1]
    frame = pd.DataFrame(dict(table.load(once))).iloc[rows].reset_index(drop=True)
    name = type(splitter).__name__
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # groups that a splitter does not need are no news
            return list(splitter.split(frame, model.design.y, None if grouping is None else grouping[1]))
    except MultilevelError:
        raise
    except Exception as error:
        lacks = "" if grouping is not None else "; give groups=, a column or a label for each row"
        raise OptionError(f"{name}.split fails on these rows: {' '.join(str(error).split())}{lacks}") from error


def _more(rows: Index) -> str:
    return f", and so for {len(rows)} rows in all" if len(rows) > 1 else ""


def _shown(one: Any) -> str:
    if isinstance(one, (list, tuple)):
        return f"{len(one)} values"
    return f"an array of shape {one.shape}" if isinstance(one, np.ndarray) else repr(one)
