"""Formula and frame to Design: response, model matrices, grouping factors, weights, offset; new data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .columns import learn, uses_of
from .contrasts import Coded, Contrast
from .design_recipe import Grouping, New, NewTerm, Recipe, TermRecipe, to_recipe
from .errors import ColumnError, DataError, FormulaError, OptionError, listing, nearest
from .expressions import Expression, analyse, evaluate
from .formula import Bar, Formula, model_text, quoted
from .rank import dependent_columns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Design", "New", "NewTerm", "Term", "build"]

Matrix = NDArray[np.float64]
Rows = NDArray[np.int64]
_DOT = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"|(?<![\w.])\.(?![\w.])")


@dataclass(frozen=True)
class Term:
    """One random-effects term `(effects | group)`.

    Attributes
    ----------
    group : str
    names : tuple of str
        Effects; the intercept is "Intercept".
    codes : ndarray of int32 (n,)
    levels : ndarray (J,)
        The user's labels.
    Z : ndarray (n, k) or None
        None means a column of ones.
    structure : str
        "us", "diag", "cs" or "ar1".
    columns : tuple of str
        Grouping columns.
    """

    group: str
    names: tuple[str, ...]
    codes: NDArray[np.int32]
    levels: NDArray[Any]
    Z: Matrix | None
    structure: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Design:
    """Everything a model needs of its data; arrays are not to be written to.

    Attributes
    ----------
    formula : Formula
    response : str
    y : ndarray (n,)
    X : ndarray (n, p)
        Full column rank, C order.
    names : tuple of str
        Columns of X.
    dropped : tuple of str
        Columns that the ones before them determine.
    all_names : tuple of str
        Columns of the full matrix in order.
    terms : tuple of Term
    weights, offset : ndarray (n,) or None
    rows : ndarray of int64 (n,)
        Position of each used row in the input.
    n_input : int
    missing : dict
        Missing values by column.
    kind : str
        "pandas", "polars", "pyarrow" or "dict".
    messages : tuple of str
        Sentences on rows and columns left out.
    remake : Recipe
        What `at` needs; holds no data.
    """

    formula: Formula
    response: str
    y: Matrix
    X: Matrix
    names: tuple[str, ...]
    dropped: tuple[str, ...]
    all_names: tuple[str, ...]
    terms: tuple[Term, ...]
    weights: Matrix | None
    offset: Matrix | None
    rows: Rows
    n_input: int
    missing: dict[str, int]
    kind: str
    messages: tuple[str, ...]
    remake: Recipe = field(repr=False)

    def at(self, new: Any, groups: str | Iterable[str] | None = "all", offset: Any = None) -> New:
        """Make the matrices on new data, with the contrasts, splines and levels of this design.

        Parameters
        ----------
        new : data frame
            Needs the columns of the fixed side, and those of the groups asked for.
        groups : "all", None or names of groups
        offset : column name or array, optional
            Needed where the model was fitted with an array as offset.

        Returns
        -------
        New
        """
        return self.remake.at(new, groups, offset)

    def recipe(self) -> dict[str, Any]:
        """Describe the design without its data, JSON-able; `design_recipe.from_recipe` restores `at`."""
        return to_recipe(self)


@dataclass
class _Plan:
    """What is to be read, worked out before any row is."""

    formula: Formula
    response: Expression
    fixed: str
    sides: list[str]  # of each bar
    offsets: list[str]  # one-column sides
    grouping: list[str]
    expressions: list[Expression]
    weights: str | None
    offset: str | None


def build(
    formula: Formula,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    missing: str = "drop",
    levels: Mapping[str, Any] | None = None,
) -> Design:
    """Turn a formula and a data frame into a design.

    Parameters
    ----------
    formula : Formula
    data : pandas, polars or arrow table, dict of columns, or anything narwhals reads
        Never changed.
    weights, offset : column name or array with a value for each input row, optional
        Rows of weight zero are left out.
    contrasts : dict, optional
        Column to "treatment", "sum", "helmert", "poly" or a matrix; for fixed and random effects alike.
    missing : {"drop", "raise"}
        Rows with missing values in the columns used.
    levels : dict, optional
        Column to its levels in order.

    Returns
    -------
    Design
    """
    if missing not in ("drop", "raise"):
        raise OptionError(f"missing must be 'drop' or 'raise', not {missing!r}")
    table = frame.Table(data)
    plan = _plan(formula, table.names, weights, offset)
    series = _load(table, plan)
    _check_options(levels, "levels", plan)
    extra = _arrays(table, data, weights, offset)
    rows, counts, messages = _rows(table.n, plan, series, extra, missing)
    if len(rows) < table.n:
        series = {name: one.iloc[rows] for name, one in series.items()}
        extra = {name: one[rows] for name, one in extra.items()}
    y = _response(plan, series, rows)
    weight = _weights(plan, series, extra)
    columns, infos = learn(series, uses_of(plan.expressions), rows, levels or {}, contrasts or {})
    messages += [
        f"Column {name!r} has the single value {frame.label_text(info.levels[0])!r} in the rows used."
        for name, info in infos.items()
        if info.levels is not None and len(info.levels) == 1
    ]
    X, all_names, kept, Zs, offsets, state = _matrices(plan, columns)
    total = _total_offset(plan, offsets, series, extra, rows)
    dropped = tuple(name for index, name in enumerate(all_names) if index not in set(kept.tolist()))
    if dropped:
        messages.append(_dropped_message(dropped))
    terms, recipes = _terms(plan, series, Zs, levels or {}, len(y))
    recipe = Recipe(
        plan.fixed,
        kept,
        all_names,
        recipes,
        tuple(plan.offsets),
        plan.offset,
        "offset" in extra,
        infos,
        state,
    )
    return Design(
        formula,
        formula.response,
        y,
        X,
        tuple(all_names[index] for index in kept),
        dropped,
        all_names,
        terms,
        weight,
        total,
        rows,
        table.n,
        counts,
        table.kind,
        tuple(messages),
        recipe,
    )


# -- what to read ---------------------------------------------------------------------------------------------


def _plan(formula: Formula, names: Sequence[str], weights: Any, offset: Any) -> _Plan:
    from .matrix import factors_of

    response = analyse(formula.response, response=True)
    if re.search(r"\b(cbind|trials)\s*\(", formula.response) or "|" in response.code:
        raise FormulaError(
            f"the response {formula.response} counts successes: that needs the family binomial, which is "
            "not available for a gaussian model",
            formula.text,
            formula.text.find(formula.response),
        )
    grouping = list(dict.fromkeys(name for bar in formula.bars for name in bar.groups))
    named = {
        "weights": weights if isinstance(weights, str) else None,
        "offset": offset if isinstance(offset, str) else None,
    }
    taken = {*response.columns, *grouping, *(name for name in named.values() if name)}
    fixed = _without_dot(formula, names, taken)
    sides = [model_text(bar.effects, formula.text, bar.start) for bar in formula.bars]
    offsets = [f"0 + I({analyse(text).text})" for text in formula.offsets]
    expressions = [one for side in dict.fromkeys([fixed, *sides, *offsets]) for one in factors_of(side)]
    return _Plan(
        formula, response, fixed, sides, offsets, grouping, expressions, named["weights"], named["offset"]
    )


def _without_dot(formula: Formula, names: Sequence[str], taken: set[str]) -> str:
    """Write all columns in place of `.`: those that are not response, group, weights or offset."""
    if "." not in formula.fixed or not any(found.group() == "." for found in _DOT.finditer(formula.fixed)):
        return formula.fixed
    for text in formula.offsets:
        taken = taken | set(analyse(text).columns)
    others = [quoted(name) for name in names if name not in taken]
    everything = f"({' + '.join(others)})" if others else "1"
    text = _DOT.sub(lambda found: everything if found.group() == "." else found.group(), formula.fixed)
    return model_text(text, formula.text, 0)


def _load(table: frame.Table, plan: _Plan) -> dict[str, pd.Series[Any]]:
    where = {name: one.text for one in plan.expressions for name in one.columns}
    where |= {name: plan.response.text for name in plan.response.columns}
    where |= {name: f"(... | {bar.group})" for bar in plan.formula.bars for name in bar.groups}
    where |= {name: what for name, what in ((plan.weights, "weights"), (plan.offset, "offset")) if name}
    if not plan.response.columns:
        raise DataError(f"the response {plan.formula.response!r} names no column of the data")
    if not table.names:
        raise DataError("the data have no columns")
    series = table.load([*plan.response.columns, *where], where)
    if table.n == 0:
        raise DataError("the data have no rows")
    return series


def _check_options(levels: Mapping[str, Any] | None, what: str, plan: _Plan) -> None:
    known = [*(name for one in plan.expressions for name in one.columns), *plan.grouping]
    for name in levels or {}:
        if name not in known:
            hint = nearest(name, known) or f"the formula uses {listing(dict.fromkeys(known))}"
            raise ColumnError(f"{what} names {name!r}, which is no predictor or group of the formula; {hint}")
    for name, values in (levels or {}).items():
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise OptionError(f"levels of {name!r} must be a list of labels, not {values!r}")


def _arrays(table: frame.Table, data: Any, weights: Any, offset: Any) -> dict[str, Matrix]:
    """Weights and offset given as arrays, of the length of the input."""
    out: dict[str, Matrix] = {}
    for what, given in (("weights", weights), ("offset", offset)):
        if given is None or isinstance(given, str):
            continue
        index = getattr(given, "index", None)
        if table.kind == "pandas" and hasattr(index, "equals") and not index.equals(data.index):
            raise DataError(
                f"the index of the {what} differs from the index of the data; give an array, or align them"
            )
        try:
            values = np.array(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(
                f"{what} must be a column name or an array of numbers, not {type(given).__name__}"
            ) from None
        if values.shape != (table.n,):
            raise DataError(
                f"{what} must have one value for each of the {table.n} rows; the shape given is {values.shape}"
            )
        out[what] = values
    return out


# -- rows -----------------------------------------------------------------------------------------------------


def _rows(
    n: int, plan: _Plan, series: Mapping[str, pd.Series[Any]], extra: Mapping[str, Matrix], missing: str
) -> tuple[Rows, dict[str, int], list[str]]:
    """Rows to use, missing values by column, sentences."""
    keep = np.ones(n, dtype=bool)
    counts: dict[str, int] = {}
    for name, one in series.items():
        if name != plan.weights:
            _strike(keep, counts, name, frame.missing_mask(one))
    if "offset" in extra:
        _strike(keep, counts, "offset", np.isnan(extra["offset"]))
    messages: list[str] = []
    dropped = n - int(np.count_nonzero(keep))
    if dropped:
        shown = ", ".join(f"{name!r} in {count}" for name, count in counts.items())
        if missing == "raise":
            first = int(np.flatnonzero(~keep)[0])
            raise DataError(
                f"{dropped} of {n} rows have missing values ({shown}), first row {first} (counting from 0); fill "
                "them, or use missing='drop'"
            )
        if dropped == n:
            worst = max(counts, key=lambda name: counts[name])
            raise DataError(
                f"no row is left: every row has a missing value ({shown}); column {worst!r} alone is missing in "
                f"{counts[worst]} of {n}"
            )
        messages.append(f"{dropped} of {n} rows were left out because of missing values: {shown}.")
    zero = _zero_weights(plan, series, extra, keep)
    if zero is not None:
        count = int(np.count_nonzero(zero))
        keep &= ~zero
        if not keep.any():
            raise DataError("no row is left: every weight is zero")
        messages.append(f"{count} of {n} rows were left out because their weight is zero.")
    return np.flatnonzero(keep), counts, messages


def _strike(keep: NDArray[np.bool_], counts: dict[str, int], name: str, holes: NDArray[np.bool_]) -> None:
    if found := int(np.count_nonzero(holes)):
        counts[name] = found
        np.logical_and(keep, ~holes, out=keep)


def _zero_weights(
    plan: _Plan, series: Mapping[str, pd.Series[Any]], extra: Mapping[str, Matrix], keep: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Rows of weight zero among those kept; refuses weights that are negative or no numbers."""
    name = plan.weights or "weights"
    values = extra.get("weights")
    if plan.weights:
        values = frame.numbers(series[plan.weights], plan.weights)
    if values is None:
        return None
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(keep & ~((values >= 0) & (values < np.inf)))
    if len(bad):
        raise DataError(
            f"{name!r} is {values[bad[0]]} in row {int(bad[0])} (counting from 0); weights are finite and at "
            "least zero (precision weights: the residual variance is sigma^2 / weight)"
        )
    zero = keep & (values == 0)
    return zero if zero.any() else None


# -- response, weights, offset --------------------------------------------------------------------------------


def _response(plan: _Plan, series: Mapping[str, pd.Series[Any]], rows: Rows) -> Matrix:
    name = plan.formula.response
    values: dict[str, Any] = {}
    for one in plan.response.columns:
        kind = frame.column_kind(series[one], one)
        if kind == "bool" and plan.response.plain:
            raise DataError(
                f"the response {one!r} holds True and False; yes/no outcomes need the family binomial, which a "
                "gaussian model is not. To treat it as 0 and 1 write astype(float)"
            )
        if kind not in ("number", "bool"):
            raise frame.not_numeric(
                series[one], one, kind, f"the response {name}" if not plan.response.plain else ""
            )
        values[one] = frame.numbers(series[one], one)
    if plan.response.plain:
        y = values[plan.response.columns[0]]
    else:
        y = _computed(plan.response, values)
    y = np.array(y, dtype=np.float64)
    if y.shape != (len(rows),):
        raise DataError(f"the response {name} gives {y.shape} values for {len(rows)} rows")
    _finite(y, f"the response {name!r}", rows, values)
    if (y == y[0]).all():
        raise DataError(
            f"the response {name!r} is {y[0]:g} in all {len(y)} rows used; there is nothing to explain"
        )
    return y


def _computed(expression: Expression, values: Mapping[str, Any]) -> Any:
    from .matrix import functions

    try:
        return evaluate(expression, values, functions())
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"cannot compute {expression.text}: {error}") from None


def _finite(values: Matrix, what: str, rows: Rows, columns: Mapping[str, Matrix] | None = None) -> None:
    if np.isfinite(values.sum()):
        return
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row = int(bad[0])
        value = "not a number" if np.isnan(values[row]) else f"{values[row]}"
        beside = ", ".join(
            f"{name} = {one[row]:g}" for name, one in (columns or {}).items() if name not in what.split("'")
        )
        raise DataError(
            f"{what} is {value} in row {int(rows[row])} (counting from 0)"
            + (f", where {beside}" if beside else "")
            + "; correct it, or set it to missing"
        )


def _weights(plan: _Plan, series: Mapping[str, pd.Series[Any]], extra: Mapping[str, Matrix]) -> Matrix | None:
    if plan.weights:
        return np.array(frame.numbers(series[plan.weights], plan.weights))
    return extra.get("weights")


def _total_offset(
    plan: _Plan,
    parts: Sequence[Matrix],
    series: Mapping[str, pd.Series[Any]],
    extra: Mapping[str, Matrix],
    rows: Rows,
) -> Matrix | None:
    """Sum of offset() in the formula and of the argument."""
    every = [part[:, 0] for part in parts]
    if plan.offset:
        every.append(frame.numbers(series[plan.offset], plan.offset))
    if "offset" in extra:
        every.append(extra["offset"])
    if not every:
        return None
    total = np.array(every[0])
    for part in every[1:]:
        total += part
    _finite(total, "the offset", rows)
    return total


# -- matrices -------------------------------------------------------------------------------------------------


def _matrices(
    plan: _Plan, columns: Any
) -> tuple[Matrix, tuple[str, ...], NDArray[np.int64], list[Any], list[Matrix], dict[str, Any]]:
    """X with its names and kept columns, (Z, names) of each bar, offsets, state; equal sides are made once."""
    from .matrix import materialise

    alone = {side for side in plan.sides if side == "1"}  # an intercept alone needs no matrix
    sides = list(
        dict.fromkeys([plan.fixed, *(side for side in plan.sides if side not in alone), *plan.offsets])
    )
    state: dict[str, Any] = {}
    made = dict(zip(sides, materialise(sides, columns, state), strict=True))
    X, all_names = made[plan.fixed]
    lost = dependent_columns(X)
    kept = np.array([index for index in range(X.shape[1]) if index not in lost], dtype=np.int64)
    ones: tuple[Matrix | None, tuple[str, ...]] = (None, ("Intercept",))
    Zs = [ones if side in alone or made[side][1] == ("Intercept",) else made[side] for side in plan.sides]
    if lost:
        X = np.ascontiguousarray(X[:, kept])
    for side, text in zip(plan.offsets, plan.formula.offsets, strict=True):
        if made[side][0].shape[1] != 1:
            raise DataError(f"offset({text}) must be one column of numbers")
    return X, all_names, kept, Zs, [made[side][0] for side in plan.offsets], state


def _dropped_message(dropped: tuple[str, ...]) -> str:
    what = f"column {dropped[0]!r} was" if len(dropped) == 1 else f"columns {listing(dropped, 20)} were"
    return f"The fixed effects are not of full rank: {what} left out, being determined by those before."


# -- random-effects terms -------------------------------------------------------------------------------------


def _terms(
    plan: _Plan, series: Mapping[str, pd.Series[Any]], Zs: Sequence[Any], levels: Mapping[str, Any], n: int
) -> tuple[tuple[Term, ...], tuple[TermRecipe, ...]]:
    single: dict[str, tuple[NDArray[np.int32], NDArray[Any]]] = {}
    groups: dict[tuple[str, ...], tuple[NDArray[np.int32], Grouping, NDArray[Any]]] = {}
    terms, recipes = [], []
    for bar, side, (Z, names) in zip(plan.formula.bars, plan.sides, Zs, strict=True):
        if not names:
            raise FormulaError(
                "the term has no effects; write 1 for an intercept", plan.formula.text, bar.start, bar.end
            )
        if bar.groups not in groups:
            groups[bar.groups] = _group(bar, series, levels, single)
        codes, grouping, labels = groups[bar.groups]
        _check_term(bar, names, len(labels), n)
        terms.append(Term(bar.group, names, codes, labels, Z, bar.structure, bar.groups))
        recipes.append(TermRecipe(bar.group, names, bar.structure, grouping, None if Z is None else side))
    return tuple(terms), tuple(recipes)


def _group(
    bar: Bar,
    series: Mapping[str, pd.Series[Any]],
    levels: Mapping[str, Any],
    single: dict[str, tuple[NDArray[np.int32], NDArray[Any]]],
) -> tuple[NDArray[np.int32], Grouping, NDArray[Any]]:
    for name in bar.groups:
        if name not in single:
            codes, labels = frame.factor(series[name], name)
            if name in levels:
                coded = Coded(name, codes, labels.tolist(), Contrast()).ordered_as(list(levels[name]))
                codes, labels = coded.codes, _as_labels(coded.levels, labels.dtype)
            single[name] = codes, labels
    parts = [single[name] for name in bar.groups]
    if len(parts) == 1:
        codes, labels = parts[0]
        grouping = Grouping(bar.groups, (labels,), np.arange(len(labels), dtype=np.int32).reshape(-1, 1))
        return codes, grouping, labels
    codes, table = frame.combine([codes for codes, _ in parts], [len(labels) for _, labels in parts])
    grouping = Grouping(bar.groups, tuple(labels for _, labels in parts), table)
    return codes, grouping, grouping.levels()


def _as_labels(values: list[Any], dtype: Any) -> NDArray[Any]:
    out = np.empty(len(values), dtype=dtype)
    out[:] = values
    return out


def _check_term(bar: Bar, names: Sequence[str], count: int, n: int) -> None:
    """Refuse terms whose variance cannot be told from the residual."""
    shown = f"({bar.effects} {'||' if bar.structure == 'diag' else '|'} {bar.group})"
    if count < 2:
        raise DataError(
            f"the grouping factor {bar.group!r} has a single level in the rows used; a variance between groups "
            f"needs at least two (five or more to be of use). Drop {shown}"
        )
    if count == n:
        raise DataError(
            f"the grouping factor {bar.group!r} has a level for each of the {n} rows used, so that its effects "
            f"cannot be told from the residuals; drop {shown}, or use a coarser factor"
        )
    width = 1 if bar.structure == "diag" else len(names)
    if count * width >= n and bar.structure != "ar1":
        raise DataError(
            f"the term {shown} has {count} x {width} = {count * width} random effects, but only {n} rows are used; "
            "its variances cannot be told from the residual variance. Use fewer effects in it"
        )
