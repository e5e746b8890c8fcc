"""The balanced grid of predictor values over which population means and slopes are taken."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .effect_lines import Source, effect_names, matrices_at, objects, predictors_of
from .errors import DataError, OptionError, listing, nearest

if TYPE_CHECKING:
    from .fit import Fit

__all__ = ["WEIGHTS", "Averages", "AveragesTable", "ReferenceGrid", "average", "dependence", "derivative", "make_grid"]

Array = NDArray[np.float64]
WEIGHTS = ("equal", "proportional", "cells")
MAX_CELLS = 1 << 27  # entries of the model rows on a grid: 1 GiB
ESTIMABLE = 1e-6  # how far a row may leave the row space of the model matrix, relative to its own size


@dataclass(frozen=True)
class ReferenceGrid:
    """Every combination of the levels of the factors and the values of the covariates.

    Attributes
    ----------
    values : dict
        Column to its values in the grid; the last column changes fastest.
    factors : frozenset of str
        Columns that enter as factors, or hold True and False.
    held : dict
        Covariates at a single value: the mean over the rows used, or what `at` says.
    rows : ndarray (m, p)
        Model rows, with the columns that were left out for rank.
    offset : ndarray (m,)
    source : Source or None
        The data, where they are still there.
    what : {"fit", "posterior"}
        What it is the grid of, for errors.
    """

    values: dict[str, list[Any]]
    factors: frozenset[str]
    held: dict[str, float]
    rows: Array
    offset: Array
    source: Source | None
    what: str = "fit"

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each column."""
        return tuple(len(one) for one in self.values.values())


@dataclass(frozen=True)
class Averages:
    """Averages of model rows over a grid: one for each combination of the columns asked for.

    Attributes
    ----------
    labels : dict
        Column to its value in each average; the first column changes fastest.
    rows : ndarray (k, p)
        NaN where the data have no row to weight by.
    offset : ndarray (k,)
    """

    labels: dict[str, NDArray[Any]]
    rows: Array
    offset: Array


class AveragesTable(ABC):
    """Numbers about averages, as columns under their labels; printed as `str` gives them."""

    averages: Averages

    @abstractmethod
    def columns(self) -> dict[str, NDArray[Any]]:
        """The table's columns as arrays."""

    def __len__(self) -> int:
        return len(self.averages.rows)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """One column as an array."""
        columns = self.columns()
        if name not in columns:
            raise OptionError(f"there is no column {name!r}; {nearest(name, columns) or 'there are ' + listing(columns)}")
        out: NDArray[Any] = columns[name]
        return out

    def __repr__(self) -> str:
        return str(self)


def make_grid(fit: Fit, at: Mapping[str, Any] | None = None) -> ReferenceGrid:
    """Make the reference grid of a fit.

    Parameters
    ----------
    at : dict, optional
        Column to the value or values it takes: numbers for a covariate (default its mean over the rows used), levels
        for a factor (default all of them).

    Raises
    ------
    OptionError
        For a column that is no fixed predictor, a value that is no number, a level not in the data, or a grid too
        large to hold.
    DataError
        Where the mean of a covariate is asked of a fit saved without its data.
    """
    design = fit.design
    if not design.all_names:
        raise OptionError("the model has no fixed effects, so that every population mean is zero")
    source = None if design.y is None else Source(fit)
    what = "posterior" if hasattr(fit, "draws_kept") else "fit"
    names = predictors(fit)
    given = _checked_at(at, names)
    values: dict[str, list[Any]] = {}
    factors, held = set(), {}
    for name in names:
        levels = _levels(fit, source, name)
        if levels is not None:
            factors.add(name)
            values[name] = _chosen_levels(name, given[name], levels) if name in given else levels
        else:
            values[name] = _numbers(name, given[name]) if name in given else [_mean(source, name, what)]
            if len(values[name]) == 1:
                held[name] = values[name][0]
    size = math.prod(len(one) for one in values.values())
    if size * len(design.all_names) > MAX_CELLS:
        raise OptionError(
            f"the reference grid would have {size:,} combinations of {listing(factors)}; hold some of them at a level, "
            f"as in at={{{max(values, key=lambda n: len(values[n]))!r}: ...}}"
        )
    rows, offset = model_rows(fit, _columns(values, size))
    return ReferenceGrid(values, frozenset(factors), held, rows, offset, source, what)


def predictors(fit: Fit) -> list[str]:
    """Columns of the fixed side, then those of the offset."""
    recipe = fit.design.remake
    offsets = [name for side in recipe.offsets for name in predictors_of(side)]
    if recipe.offset_column:
        offsets.append(recipe.offset_column)
    return list(dict.fromkeys([*effect_names(fit.design), *offsets]))


def model_rows(fit: Fit, columns: dict[str, Any]) -> tuple[Array, Array]:
    """Model rows (m, p) with all columns, and the offset (m,), at the given values of the predictors.

    An offset that was given as an array stands at its mean.
    """
    import pandas as pd

    data = pd.DataFrame(columns or {"rows": np.zeros(1)})
    known = fit.design.offset
    means = None if known is None or not fit.design.remake.offset_array else np.full(len(data), known.mean())
    _, offset = matrices_at(fit, data, [], means)
    zeros = np.zeros(len(data)) if fit.design.remake.offset_array else None
    recipe = fit.design.remake
    whole = replace(recipe, kept=np.arange(len(recipe.all_names), dtype=np.int64))
    return whole.at(data, None, zeros).X, offset


def _columns(values: Mapping[str, list[Any]], size: int) -> dict[str, Any]:
    """The grid as columns of a table, the last one changing fastest."""
    out: dict[str, Any] = {}
    repeat = size
    for name, one in values.items():
        repeat //= len(one)
        column = np.array(one) if isinstance(one[0], (float, bool)) else objects(one)
        out[name] = np.tile(np.repeat(column, repeat), size // (repeat * len(one)))
    return out


# -- what stands in the grid ----------------------------------------------------------------------------------


def _checked_at(at: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, list[Any]]:
    """Column to a list of values."""
    if at is None:
        return {}
    if not isinstance(at, Mapping):
        raise OptionError(f"at must be a dict of column to value or values, such as {{'x': [0, 1]}}; got {at!r}")
    out = {}
    for name, given in at.items():
        if name not in names:
            hint = nearest(name, names) or f"there are {listing(names)}"
            raise OptionError(f"at names {name!r}, which is no fixed predictor of the model; {hint}")
        single = isinstance(given, (str, bytes)) or not np.iterable(given)
        out[str(name)] = [given] if single else [v.item() if isinstance(v, np.generic) else v for v in given]
        if not out[name]:
            raise OptionError(f"at[{name!r}] holds no value; give one or more")
    return out


def _levels(fit: Fit, source: Source | None, name: str) -> list[Any] | None:
    """Levels of a factor, False and True of a column of these, None for numbers."""
    if source is not None:
        return source.levels(name)
    info = fit.design.remake.infos.get(name)
    return None if info is None else info.levels


def _chosen_levels(name: str, given: list[Any], levels: list[Any]) -> list[Any]:
    """The levels named, in the order given."""
    known = {frame.label_text(level): level for level in levels}
    texts = [_level_text(one) for one in given]
    for text in texts:
        if text not in known:
            hint = nearest(text, known) or f"its levels are {listing(known)}"
            raise OptionError(f"at[{name!r}] has {text!r}, which is no level of {name!r} in the data; {hint}")
    return [known[text] for text in _distinct(name, texts)]


def _level_text(given: Any) -> str:
    """A level as text: 3.0 is the level 3."""
    return frame.label_text(int(given) if isinstance(given, float) and given.is_integer() else given)


def _numbers(name: str, given: list[Any]) -> list[float]:
    try:
        values = [float(one) for one in given]
    except (TypeError, ValueError):
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise OptionError(f"at[{name!r}] must be a number or a list of numbers, for {name!r} is one; got {given!r}")
    return _distinct(name, values)


def _distinct(name: str, values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        twice = next(one for one in values if values.count(one) > 1)
        raise OptionError(f"at[{name!r}] has {twice!r} more than once; give each value once")
    return values


def _mean(source: Source | None, name: str, what: str) -> float:
    if source is None:
        raise DataError(
            f"this {what} was saved without its data, so that the mean of {name!r} is not known; give the value, as in "
            f"at={{{name!r}: 0}}, or save the {what} with save(path, data=True)"
        )
    return float(source.values(name).mean())


# -- averages ---------------------------------------------------------------------------------------------------


def average(grid: ReferenceGrid, columns: Sequence[str], weights: str, case_weights: Array | None) -> Averages:
    """Average the rows of a grid within every combination of some columns.

    Parameters
    ----------
    columns : sequence of str
        Kept apart; the first changes fastest in the result, as in emmeans.
    weights : {"equal", "proportional", "cells"}
        How the other combinations are averaged: equally, by how often they occur in the data, or by how often they occur
        together with the combination kept. Frequencies are sums of prior weights where the model has any.
    case_weights : ndarray (n,) or None
    """
    names = list(grid.values)
    apart = [names.index(name) for name in reversed(columns)]
    others = [index for index in range(len(names)) if index not in apart]
    shape = grid.shape
    count = math.prod(shape[index] for index in apart)
    order = [*apart, *others, len(names)]
    rows = np.column_stack([grid.rows, grid.offset]).reshape(*shape, -1).transpose(order)
    rows = rows.reshape(count, math.prod(shape[index] for index in others), -1)
    if weights == "equal":
        made = rows.mean(axis=1)
    else:
        counts = _frequencies(grid, case_weights).transpose(order[:-1]).reshape(rows.shape[:2])
        if weights == "proportional":
            counts = np.broadcast_to(counts.sum(axis=0), counts.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            made = np.einsum("ij,ijk->ik", counts / counts.sum(axis=1, keepdims=True), rows)
    product = itertools.product(*(grid.values[name] for name in reversed(columns)))
    combinations = [tuple(reversed(one)) for one in product]
    labels = {name: _label_column([one[i] for one in combinations]) for i, name in enumerate(columns)}
    return Averages(labels, made[:, :-1], made[:, -1])


def _label_column(values: list[Any]) -> NDArray[Any]:
    """Numbers as numbers, everything else as it is."""
    return np.array(values) if all(type(one) in (float, bool) for one in values) else objects(values)


def _frequencies(grid: ReferenceGrid, case_weights: Array | None) -> Array:
    """How often each combination of the factors occurs in the data; the values of covariates do not count."""
    if grid.source is None:
        raise DataError(
            f"this {grid.what} was saved without its data, so that frequencies are not known; use weights='equal', or save "
            f"the {grid.what} with save(path, data=True)"
        )
    n = len(grid.source.design.y)
    index, inside = np.zeros(n, dtype=np.int64), np.ones(n, dtype=bool)
    shape = tuple(len(one) if name in grid.factors else 1 for name, one in grid.values.items())
    for name, length in zip(grid.values, shape, strict=True):
        if name not in grid.factors:
            continue
        levels = grid.source.levels(name) or []
        place = {frame.label_text(level): i for i, level in enumerate(grid.values[name])}
        table = np.array([place.get(frame.label_text(level), -1) for level in levels])
        codes = table[grid.source.values(name).astype(np.int64)]
        inside &= codes >= 0
        index = index * length + codes
    counted = np.ones(n) if case_weights is None else case_weights
    counts = np.bincount(index[inside], weights=counted[inside], minlength=math.prod(shape))
    return np.broadcast_to(counts.reshape(shape), grid.shape)


def dependence(fit: Fit) -> Array | None:
    """(kept, dropped) coefficients of the columns left out for rank on the others; None where none was left out.

    A linear combination of the fixed effects is estimable if its entries for the dropped columns follow from those for
    the kept ones in the same way (Searle 1971, Linear Models, section 5.4).
    """
    design = fit.design
    if not design.dropped:
        return None
    rows = fit.rows_of_data()
    recipe = design.remake
    whole = replace(recipe, kept=np.arange(len(recipe.all_names), dtype=np.int64))
    zeros = np.zeros(design.n_input) if recipe.offset_array else None
    X = whole.at(fit.model.data, None, zeros).X[rows.rows]
    lost = np.setdiff1d(np.arange(X.shape[1]), recipe.kept)
    scale = np.linalg.norm(X[:, recipe.kept], axis=0)
    out: Array = np.linalg.lstsq(X[:, recipe.kept] / scale, X[:, lost], rcond=None)[0] / scale[:, None]
    return out


def estimable(rows: Array, kept: NDArray[np.int64], depends: Array | None) -> NDArray[np.bool_]:
    """Which rows (m, p), with all columns, are determined by the data."""
    known: NDArray[np.bool_] = np.asarray(np.isfinite(rows).all(axis=1))
    if depends is None:
        return known
    lost = np.setdiff1d(np.arange(rows.shape[1]), kept)
    with np.errstate(invalid="ignore"):
        gap = np.abs(rows[:, lost] - rows[:, kept] @ depends).max(axis=1)
        size = np.abs(rows).max(axis=1) * max(1.0, float(np.abs(depends).max()))
        return np.asarray(known & (gap <= ESTIMABLE * size))


# -- slopes -------------------------------------------------------------------------------------------------------


def derivative(fit: Fit, grid: ReferenceGrid, variable: str) -> ReferenceGrid:
    """The grid with model rows and offset replaced by their derivatives by one covariate.

    Central differences with a step of the cube root of the rounding unit, in units of the range of the covariate (or of
    its value, where it keeps one sign and may stand in a logarithm): about ten digits. At the ends of the range the
    difference is one-sided and of second order, for a spline ends there.
    """
    size = len(grid.rows)
    columns = _columns(grid.values, size)
    x = np.asarray(columns[variable], dtype=np.float64)
    observed = x if grid.source is None else grid.source.values(variable)
    low, high = float(observed.min()), float(observed.max())
    step = np.full(size, np.cbrt(np.finfo(float).eps) * ((high - low) or max(abs(high), 1.0)))
    if low > 0 or high < 0:
        step = np.minimum(step, np.cbrt(np.finfo(float).eps) * np.abs(np.where(x == 0, high - low, x)))
    # one-sided only where a central difference would cross an end of the range, inwards
    side = np.where((x <= high) & (x + step > high), -1, np.where((x >= low) & (x - step < low), 1, 0))
    if grid.source is None or high == low:
        side[:] = 0
    near = np.where(side == 0, x - step, x + side * step)
    far = np.where(side == 0, x + step, x + 2 * side * step)
    at = [_stacked(fit, columns, variable, points) for points in (x, near, far)]
    base, one, two = at
    h1, h2 = (near - x)[:, None], (far - x)[:, None]
    # the derivative at x of the parabola through the three points
    made = (h2 * (one - base) / h1 - h1 * (two - base) / h2) / (h2 - h1)
    return replace(grid, rows=made[:, :-1], offset=made[:, -1])


def _stacked(fit: Fit, columns: dict[str, Any], variable: str, points: Array) -> Array:
    rows, offset = model_rows(fit, {**columns, variable: points})
    return np.column_stack([rows, offset])
