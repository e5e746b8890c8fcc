"""Numbers behind the effects plot, and the columns of a fit that plots draw along or hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .columns import uses_of
from .errors import DataError, OptionError, listing, nearest

if TYPE_CHECKING:
    import pandas as pd

    from .design import Design
    from .design_recipe import New
    from .fit import Fit

__all__ = ["GRID", "Effect", "Source", "effect", "effect_names", "matrices_at", "objects", "pick", "predictors_of"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]
GRID = 41  # points of a curve: enough for a spline to look smooth


@dataclass(frozen=True)
class Effect:
    """Population prediction along one fixed predictor.

    Attributes
    ----------
    name : str or None
        None for the mean of a model without predictors.
    labels : tuple of str or None
        Levels where it is a factor; the grid then counts 0, 1, ...
    grid, estimate, std_error : (m,) arrays
    held : dict
        Value of every other predictor.
    x, y : arrays
        Rows drawn: the estimate at the row's own value plus the row's residual; empty unless asked for.
    """

    name: str | None
    labels: tuple[str, ...] | None
    grid: Array
    estimate: Array
    std_error: Array
    held: dict[str, Any]
    x: Array
    y: Array


def pick(name: Any, options: Sequence[str], what: str) -> str:
    """Return `name` if it is one of the options, and raise an error that offers the nearest if not."""
    if name in options:
        return str(name)
    raise OptionError(f"{name!r} is no {what}; {nearest(name, options) or 'there are ' + listing(options)}")


class Source:
    """Columns of the rows used, and what the model takes each one for."""

    def __init__(self, fit: Fit) -> None:
        self.design = fit.rows_of_data()
        self.recipe = self.design.remake
        names = [*self.recipe.infos, *(name for term in self.design.terms for name in term.columns)]
        if self.recipe.offset_column:
            names.append(self.recipe.offset_column)
        series = frame.Table(fit.model._data).load(names)
        self.series = {name: one.iloc[self.design.rows] for name, one in series.items()}
        self._values: dict[str, Array] = {}

    def levels(self, name: str) -> list[Any] | None:
        """Levels of a column that enters as a factor, or holds True and False; None for numbers."""
        info = self.recipe.infos.get(name)
        if info is not None and info.levels is not None:
            return info.levels
        return [False, True] if frame.column_kind(self.series[name], name) == "bool" else None

    def values(self, name: str) -> Array:
        """Where to draw each row along a column: its number, or the position of its level."""
        if name not in self._values:
            info = self.recipe.infos.get(name)
            if info is None or info.levels is None:
                self._values[name] = frame.numbers(self.series[name], name)
            else:
                codes, _ = frame.lookup(self.series[name], name, objects(info.levels))
                self._values[name] = codes.astype(np.float64)
        return self._values[name]

    def mean(self, name: str, rows: Index) -> float:
        """Mean over rows; exactly their value where it is the same in all."""
        values = self.values(name)[rows]
        return float(values[0] if (values == values[0]).all() else values.mean())

    def most_frequent(self, name: str, rows: Index) -> int:
        """Position of a row with the value most frequent in rows."""
        _, first, counts = np.unique(self.values(name)[rows], return_index=True, return_counts=True)
        return int(rows[first[np.argmax(counts)]])


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """The values as an object array, each as it is."""
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def predictors_of(side: str | None) -> list[str]:
    """Columns that a side of the formula uses, in order."""
    from .matrix import factors_of

    return [] if side is None else list(uses_of(factors_of(side)))


def effect_names(design: Design) -> list[str]:
    """Columns on the fixed side, in order."""
    return predictors_of(design.remake.fixed)


def matrices_at(fit: Fit, new: pd.DataFrame, groups: list[str], means: Array | None) -> tuple[New, Array]:
    """Matrices of new rows and their offset; for one given as an array, its mean over the rows held stands in."""
    recipe = fit.design.remake
    if recipe.offset_array:
        if means is None:
            raise DataError(
                "this model was saved without its data, and with them the offset, which was an array; save it with "
                "save(path, data=True)"
            )
        return fit.design.at(new, groups or None, offset=np.zeros(len(new))), means
    made = fit.design.at(new, groups or None)
    return made, np.zeros(len(new)) if made.offset is None else made.offset


def effect(fit: Fit, name: str | None, at: Mapping[str, Any] | None = None, points: int = 0) -> Effect:
    """Population prediction along one fixed predictor, the others held.

    Parameters
    ----------
    name : str or None
        None for a model without predictors.
    at : dict, optional
        Column to the value to hold it at, or to the (low, high) range to draw (held at its middle elsewhere).
        Default: the mean of numbers over the rows used, the reference (first) level of factors, False.
    points : int
        Rows to give besides (at most), drawn with a fixed seed.
    """
    design = fit.design
    names = effect_names(design)
    at = dict(at or {})
    for key in at:
        pick(key, names, "fixed predictor of the model, so that at cannot hold it")
    source = None if design.y is None else Source(fit)
    offsets = [n for side in design.remake.offsets for n in predictors_of(side)]
    if design.remake.offset_column:
        offsets.append(design.remake.offset_column)
    others = [n for n in dict.fromkeys([*names, *offsets]) if n != name]
    held = {n: _held(n, source, design, at) for n in others}
    values, grid, labels = _drawn(name, source, design, at)
    estimate, std_error = _population_at(fit, name, values, held)
    x = y = np.empty(0)
    if points and source is not None and name is not None:
        rows = np.arange(len(design.y))
        if len(rows) > points:
            rows = np.sort(np.random.default_rng(0).choice(rows, points, replace=False))
        x = source.values(name)[rows]
        y = _population_at(fit, name, source.series[name].iloc[rows].reset_index(drop=True), held)[0]
        y = y + fit.residuals()[design.rows][rows]
    shown = {n: v for n, v in held.items() if n in names}
    return Effect(name, labels, grid, estimate, std_error, shown, x, y)


def _held(name: str, source: Source | None, design: Design, at: Mapping[str, Any]) -> Any:
    """The value of a predictor that is not drawn."""
    levels = _levels_of(name, source, design)
    if name in at:
        if levels is None:
            return float(np.mean(_numbers_of(name, at[name])))
        known = {frame.label_text(level): level for level in levels}
        return known[pick(frame.label_text(at[name]), list(known), f"level of {name!r}")]
    if levels is not None:
        return levels[0]
    if source is None:
        raise _unknown("value", name, "0")
    return float(source.values(name).mean())


def _levels_of(name: str, source: Source | None, design: Design) -> list[Any] | None:
    if source is not None:
        return source.levels(name)
    info = design.remake.infos.get(name)
    return None if info is None else info.levels


def _unknown(what: str, name: str, example: str) -> DataError:
    return DataError(
        f"this model was saved without its data, so that the {what} of {name!r} is not known; give it, as in "
        f"at={{{name!r}: {example}}}, or save the fit with save(path, data=True)"
    )


def _numbers_of(name: str, given: Any) -> Array:
    try:
        values = np.atleast_1d(np.asarray(given, dtype=np.float64))
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise OptionError(f"at[{name!r}] must be a number, or a (low, high) range, not {given!r}")
    return values


def _drawn(
    name: str | None, source: Source | None, design: Design, at: Mapping[str, Any]
) -> tuple[Any, Array, tuple[str, ...] | None]:
    """Values to predict at, where to draw them, and labels."""
    if name is None:
        return None, np.zeros(1), None
    if (levels := _levels_of(name, source, design)) is not None:
        return objects(levels), np.arange(len(levels), dtype=np.float64), tuple(map(frame.label_text, levels))
    if name in at and np.ndim(at[name]):
        found = _numbers_of(name, at[name])
    elif source is not None:
        found = source.values(name)
    else:
        raise _unknown("range", name, "(0, 1)")
    grid = np.linspace(found.min(), found.max(), GRID)
    return grid, grid, None


def _population_at(fit: Fit, name: str | None, values: Any, held: Mapping[str, Any]) -> tuple[Array, Array]:
    """Prediction without group effects, and its standard error from the fixed effects."""
    made, offset = population_rows(fit, name, values, held)
    variance = np.einsum("ij,jk,ik->i", made.X, fit.optimum.vcov, made.X)
    return offset + made.X @ fit.optimum.beta, np.sqrt(variance)


def population_rows(fit: Fit, name: str | None, values: Any, held: Mapping[str, Any]) -> tuple[New, Array]:
    """Matrices at values of one predictor, the others held, and their offset."""
    import pandas as pd

    m = 1 if values is None else len(values)
    columns: dict[str, Any] = {"rows": np.zeros(m)} if not held and name is None else {}
    for key, value in held.items():
        columns[key] = np.full(m, value, dtype=object if isinstance(value, str) else None)
    if name is not None:
        columns[name] = values
    known = fit.design.offset
    means = None if known is None or not fit.design.remake.offset_array else np.full(m, known.mean())
    return matrices_at(fit, pd.DataFrame(columns), [], means)
