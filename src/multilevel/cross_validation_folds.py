"""Which rows are left out together: at random, by group, or as the user's labels say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError, listing, nearest
from .frame import Table, factor, missing_mask

if TYPE_CHECKING:
    import pandas as pd

    from .model import Model

__all__ = ["Folds", "column_codes", "folds_of", "labels_of"]


@dataclass(frozen=True)
class Folds:
    """Rows left out.

    Attributes
    ----------
    rows : (n,) int array
        Rows that the models use, by their position in the data.
    fold : (n,) int array
        Fold that leaves each out, from 0; -1 for one that is always fitted.
    unit : (n,) int array
        The rows of one unit have a joint score; -1 where rows are left out one by one.
    units : tuple
        Label of each unit.
    what : str
        What was left out: "rows", a grouping factor, or "folds".
    labels : tuple
        Label of each fold.
    train : tuple of int arrays, optional
        Rows that each fold fits, by their place in `rows`; default all that it does not leave out.
    """

    rows: NDArray[np.int64]
    fold: NDArray[np.int64]
    unit: NDArray[np.int64]
    units: tuple[Any, ...]
    what: str
    labels: tuple[Any, ...]
    train: tuple[NDArray[np.int64], ...] | None = None

    def fitted(self, fold: int) -> NDArray[np.int64]:
        """Rows of the data that a fold fits."""
        return self.rows[self.fold != fold] if self.train is None else self.rows[self.train[fold]]

    @property
    def count(self) -> int:
        """Folds."""
        return len(self.labels)


def folds_of(model: Model, leave: Any, folds: Any, rng: np.random.Generator, groups: Any = None) -> Folds:
    """What `leave`, `folds` and `groups` of `multilevel.cross_validate` mean for the rows of a model.

    Raises
    ------
    OptionError, DataError
        For a way to leave out that is not known, a number of folds that is not possible, labels of another length.
    """
    from .cross_validation_splits import folds_of_splits, holds_splits, is_splitter

    rows = model.design.rows
    if not isinstance(leave, str) and not hasattr(leave, "__len__") and isinstance(leave, Iterable):
        leave = list(leave)  # such as splitter.split(X, y)
    if is_splitter(leave) or holds_splits(leave):
        return folds_of_splits(model, leave, groups)
    if groups is not None:
        raise OptionError(
            "groups= goes with a splitter or with pairs of row numbers; to leave out the groups of a column name it in leave="
        )
    if isinstance(leave, str):
        if leave == "rows":
            return _of_rows(rows, folds, rng)
        group, codes, levels = column_codes(model, leave)
        return _of_groups(rows, group, codes, levels, folds, rng)
    return _custom(model, leave)


def _number(folds: Any, most: int, what: str) -> int:
    """How many folds; `most` is every row or group by itself."""
    if isinstance(folds, str) and folds == "all":
        return most
    if isinstance(folds, bool) or not isinstance(folds, (int, np.integer)) or folds < 2:
        raise OptionError(
            f"folds must be a whole number of at least 2, or 'all' for each of the {what} by itself; got {folds!r}"
        )
    return int(folds)


def _of_rows(rows: NDArray[np.int64], folds: Any, rng: np.random.Generator) -> Folds:
    n = len(rows)
    count = _number(folds, n, "rows")
    if count > n:
        raise OptionError(f"folds is {count}, but the model uses only {n} rows; 'all' leaves out one row at a time")
    fold = np.empty(n, dtype=np.int64)
    fold[rng.permutation(n)] = np.arange(n) % count
    none = np.full(n, -1, dtype=np.int64)
    return Folds(rows, fold, none, (), "rows", tuple(range(1, count + 1)))


def column_codes(model: Model, leave: str, option: str = "leave") -> tuple[str, NDArray[np.int64], NDArray[Any]]:
    """The grouping factor that `leave` (or another option) names, with codes of the rows and levels."""
    from .resampling import outermost

    d = model.design
    table = Table(model.data)
    if leave == "groups" and (option == "leave" or leave not in table.names):
        if not d.terms:
            raise OptionError(
                f"leave='groups' leaves out the groups of the first model, and {model.formula.text!r} has none; name a "
                "column instead (leave='school'), or give the model with random terms first"
            )
        name = outermost(d)[0]
    else:
        name = leave
    for term in d.terms:
        if term.group == name:
            return name, term.codes.astype(np.int64), np.asarray(term.levels)
    if name not in table.names:
        known = list(dict.fromkeys([*(t.group for t in d.terms), *table.names]))
        known, array = (["rows", "groups", *known], "fold") if option == "leave" else (known, "group")
        hint = nearest(leave, known) or f"allowed are {listing(known)}."
        raise OptionError(f"{option}={leave!r} is not known; {hint} Or give an array with the {array} of each row")
    codes, levels = factor(table.load([name])[name].iloc[d.rows], name)
    if (codes < 0).any():
        row = int(d.rows[np.flatnonzero(codes < 0)[0]])
        raise DataError(
            f"column {name!r} is missing in row {row} (counting from 0), so that row belongs to no group; fill it"
        )
    return name, codes.astype(np.int64), levels


def _of_groups(
    rows: NDArray[np.int64], name: str, codes: NDArray[np.int64], levels: NDArray[Any], folds: Any, rng: np.random.Generator
) -> Folds:
    """Whole groups, of about equal number in each fold; each by itself where they are no more than the folds."""
    present = np.unique(codes)
    if len(present) < 2:
        raise DataError(f"{name!r} has a single group in the rows used, so no group can be left out")
    place = np.zeros(len(levels), dtype=np.int64)
    place[present] = np.arange(len(present))
    count = min(_number(folds, len(present), "groups"), len(present))
    of_group = np.arange(len(present))
    if count < len(present):
        of_group[rng.permutation(len(present))] = np.arange(len(present)) % count
    units = tuple(levels[present].tolist())
    labels = units if count == len(present) else tuple(range(1, count + 1))
    return Folds(rows, of_group[place[codes]], place[codes], units, name, labels)


def _custom(model: Model, leave: Any) -> Folds:
    """Folds by a label for each row of the data; rows without one are always fitted."""
    d = model.design
    series = labels_of(leave, d.n_input, "leave", "the fold")
    used = series.iloc[d.rows]
    if not all(np.ndim(one) == 0 for one in used):
        raise OptionError("leave must have one label for each row of the data; got several for a row")
    labels = sorted(used[~missing_mask(used)].unique().tolist(), key=lambda one: (str(type(one)), one))
    if len(labels) < 1:
        raise OptionError("leave has no fold for any row that the model uses; give each row to leave out its fold")
    place = {label: i for i, label in enumerate(labels)}
    fold = np.array([place.get(one, -1) for one in used.tolist()], dtype=np.int64)
    if len(labels) == 1 and (fold >= 0).all():
        raise OptionError(f"leave puts all rows into the one fold {labels[0]!r}, which leaves none to fit")
    return Folds(d.rows, fold, fold.copy(), tuple(labels), "folds", tuple(labels))


def labels_of(given: Any, n: int, option: str, what: str) -> pd.Series[Any]:
    """(n,) labels of the rows of the data, as a user gives them."""
    import pandas as pd

    try:
        values = given if hasattr(given, "__len__") else list(given)
        series = pd.Series(values.to_list() if hasattr(values, "to_list") else list(values))
    except TypeError:
        also = "'rows', 'groups', a splitter, (train, test) pairs, " if option == "leave" else ""
        raise OptionError(
            f"{option} must be {also}the name of a column, or an array with {what} of each row of the data; got {given!r}"
        ) from None
    if len(series) != n:
        raise DataError(f"{option} must have {what} of each of the {n} rows of the data; got {len(series)} values")
    return series
