"""Formula and frame to Design: response, model matrices, grouping factors, weights, offset; new data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import effect_order, frame, relatives, responses
from .columns import learn, uses_of
from .contrasts import Coded, Contrast
from .design_recipe import Grouping, New, NewTerm, Recipe, TermRecipe, to_recipe
from .errors import DataError, FormulaError, OptionError, listing
from .formula import Bar, Formula
from .plan import Plan, arrays, check_levels, load, make_plan
from .rank import dependent_columns
from .rows import response_values, total_offset, usable_rows, weight_values

if TYPE_CHECKING:
    import pandas as pd

    from .families import Family
    from .relatives import KnownCovariance

__all__ = ["Design", "New", "NewTerm", "Term", "build"]

Matrix = NDArray[np.float64]
Rows = NDArray[np.int64]


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
    known : dict
        Grouping factor -> known covariance between its levels.
    trials : ndarray (n,) or None
        Of counts of successes; of an ordinal response the number of categories.
    labels : tuple of str
        Categories of an ordinal response, failure and success of a two-valued one.
    sides : dict
        Further model matrices with their columns, by what they are of: "dispersion", "zi".
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
    known: Mapping[str, KnownCovariance] = field(repr=False, default_factory=dict)
    trials: Matrix | None = None
    labels: tuple[str, ...] = ()
    sides: Mapping[str, tuple[Matrix, tuple[str, ...]]] = field(repr=False, default_factory=dict)

    def at(
        self, new: Any, groups: str | Iterable[str] | None = "all", offset: Any = None, *, effects: bool = False
    ) -> New:
        """Make the matrices on new data, with the contrasts, splines and levels of this design.

        Parameters
        ----------
        new : data frame
            Needs the columns of the fixed side, and those of the groups asked for.
        groups : "all", None or names of groups
        offset : column name or array, optional
            Needed where the model was fitted with an array as offset.
        effects : bool
            Also the terms of groups not asked for, with their effects (Z) and every group unknown (code -1).

        Returns
        -------
        New
        """
        return self.remake.at(new, groups, offset, effects=effects)

    def recipe(self) -> dict[str, Any]:
        """Describe the design without its data, JSON-able; `design_recipe.from_recipe` restores `at`."""
        return to_recipe(self)


def build(
    formula: Formula,
    data: Any,
    *,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    missing: str = "drop",
    levels: Mapping[str, Any] | None = None,
    also: Mapping[str, str] | None = None,
    covariance: Mapping[str, Any] | None = None,
    family: Family | None = None,
    extra: Mapping[str, str] | None = None,
    known_sigma: bool = False,
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
    also : dict, optional
        Further columns whose missing values cost a row, each with the text it is needed for.
    covariance : dict, optional
        Grouping factor to the known covariance between its levels.
    family : Family, optional
        What the response is, where it is not Gaussian.
    extra : dict, optional
        Further fixed sides, rendered for formulaic, by what they are of: "dispersion", "zi".

    Returns
    -------
    Design
    """
    if missing not in ("drop", "raise"):
        raise OptionError(f"missing must be 'drop' or 'raise', not {missing!r}")
    table = frame.Table(data)
    plan = make_plan(formula, table.names, weights, offset, also, extra, family is None)
    series = load(table, plan)
    check_levels(levels, "levels", plan)
    given = arrays(table, data, weights, offset)
    rows, counts, messages = usable_rows(table.n, plan, series, given, missing)
    if len(rows) < table.n:
        series = {name: one.iloc[rows] for name, one in series.items()}
        given = {name: one[rows] for name, one in given.items()}
    weight = weight_values(plan, series, given)
    response = None if family is None else responses.read(plan, series, rows, family, weight)
    y = response_values(plan, series, rows) if response is None else response.y
    if response is not None:
        weight = response.weights
        messages += response.messages
    columns, infos = learn(series, uses_of(plan.expressions), rows, levels or {}, contrasts or {})
    messages += [
        f"Column {name!r} has the single value {frame.label_text(info.levels[0])!r} in the rows used, so it has no effect."
        for name, info in infos.items()
        if info.levels is not None and len(info.levels) == 1
    ]
    messages += [
        f"Column {name!r} holds numbers written as text and enters as a factor of {len(info.levels)} levels; for one slope "
        "convert it with astype(float), to mean a factor write factor() or make it categorical."
        for name, info in infos.items()
        if info.levels is not None and _numbers_as_text(name, series[name], info.levels, plan)
    ]
    X, all_names, kept, Zs, offsets, more, state = _matrices(plan, columns)
    if family is not None and family.name == "ordinal" and len(kept) and all_names[kept[0]] == "Intercept":
        X, kept, shown_names = np.ascontiguousarray(X[:, 1:]), kept[1:], all_names[1:]  # thresholds are intercepts enough
    else:
        shown_names = all_names
        if family is not None and family.name == "ordinal":
            _leave_the_constant(X, formula)
    total = total_offset(plan, offsets, series, given, rows)
    kept_names = {all_names[index] for index in kept}
    dropped = tuple(name for name in shown_names if name not in kept_names)
    if dropped:
        messages.append(_dropped_message(dropped))
    known = relatives.read_all(covariance, [bar.group for bar in formula.bars])
    terms, recipes = _terms(plan, series, Zs, levels or {}, None if known_sigma or family is not None else len(y), known)
    messages += effect_order.check(plan, terms, series, levels or {})
    recipe = Recipe(
        plan.fixed,
        kept,
        all_names,
        recipes,
        tuple(plan.offsets),
        plan.offset,
        "offset" in given,
        infos,
        state,
        plan.extra,
    )
    return Design(
        formula,
        formula.response,
        y,
        X,
        tuple(all_names[index] for index in kept),
        dropped,
        shown_names,
        terms,
        weight,
        total,
        rows,
        table.n,
        counts,
        table.kind,
        tuple(messages),
        recipe,
        known,
        None if response is None else response.trials,
        () if response is None else response.labels,
        more,
    )


# -- matrices --------------------------------------------------------------------------------------


def _matrices(
    plan: Plan, columns: Any
) -> tuple[Matrix, tuple[str, ...], NDArray[np.int64], list[Any], list[Matrix], dict[str, Any], dict[str, Any]]:
    """X, its names and kept columns, (Z, names) of each bar, offsets, further sides, state; equal sides are made once."""
    from .matrix import materialise

    alone = {side for side in plan.sides if side == "1"}  # an intercept alone needs no matrix
    sides = list(
        dict.fromkeys(
            [plan.fixed, *(side for side in plan.sides if side not in alone), *plan.offsets, *plan.extra.values()]
        )
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
    more = {what: made[side] for what, side in plan.extra.items()}
    for what, (matrix, names) in more.items():
        if not matrix.shape[1]:
            option = what if what != "zi" else "zi (or hurdle)"
            raise OptionError(f"the formula of {option} has no columns and needs at least one coefficient; write '~ 1'")
        if dependent := dependent_columns(matrix):
            raise DataError(
                f"the {what} formula is not of full rank: {names[min(dependent)]!r} is determined by the "
                f"columns before it; leave it out"
            )
    return X, all_names, kept, Zs, [made[side][0] for side in plan.offsets], more, state


def _numbers_as_text(name: str, series: pd.Series[Any], levels: list[Any], plan: Plan) -> bool:
    """Whether a bare text column looks as if it was read from a file as text by accident."""
    if not any(one.plain and name in one.columns for one in plan.expressions):
        return False
    if frame.column_kind(series, name) != "text" or len(levels) < 3:
        return False
    try:
        return all(np.isfinite(float(level)) for level in levels)
    except (TypeError, ValueError):
        return False


def _leave_the_constant(X: Matrix, formula: Formula) -> None:
    """Refuse fixed effects of an ordinal response that hold a constant, as ``0 + f`` does: the thresholds are it."""
    if X.shape[1] and dependent_columns(np.column_stack([np.ones(len(X)), X])):
        raise FormulaError(
            "columns of the fixed effects add up to a constant, which the thresholds of an ordinal model are already; "
            f"leave the 0 out: {formula.response} ~ f, not {formula.response} ~ 0 + f",
            formula.text,
            formula.text.find("~") + 1,
        )


def _dropped_message(dropped: tuple[str, ...]) -> str:
    what = f"column {dropped[0]!r} was" if len(dropped) == 1 else f"columns {listing(dropped, 20)} were"
    return f"The fixed effects are not of full rank: {what} left out, being determined by those before."


# -- random-effects terms --------------------------------------------------------------------------


def _terms(
    plan: Plan,
    series: Mapping[str, pd.Series[Any]],
    Zs: Sequence[Any],
    levels: Mapping[str, Any],
    n: int | None,
    known: Mapping[str, KnownCovariance],
) -> tuple[tuple[Term, ...], tuple[TermRecipe, ...]]:
    single: dict[str, tuple[NDArray[np.int32], NDArray[Any]]] = {}
    groups: dict[tuple[str, ...], tuple[NDArray[np.int32], Grouping]] = {}
    labels: dict[tuple[str, ...], NDArray[Any]] = {}
    terms, recipes = [], []
    for bar, side, (Z, names) in zip(plan.formula.bars, plan.sides, Zs, strict=True):
        if not names:
            raise FormulaError(
                "the term has no effects; write 1 for an intercept", plan.formula.text, bar.start, bar.end
            )
        if bar.groups not in groups:
            groups[bar.groups] = _group(bar, series, levels, single)
            if bar.group in known:
                groups[bar.groups] = _related(bar, *groups[bar.groups], known[bar.group])
        codes, grouping = groups[bar.groups]
        if bar.group not in known:
            _check_term(bar, names, len(grouping.parts), n)  # without n: the residual's variance is no parameter
        if bar.groups not in labels:
            labels[bar.groups] = grouping.levels()
        terms.append(Term(bar.group, names, codes, labels[bar.groups], Z, bar.structure, bar.groups))
        recipes.append(TermRecipe(bar.group, names, bar.structure, grouping, None if Z is None else side))
    return tuple(terms), tuple(recipes)


def _group(
    bar: Bar,
    series: Mapping[str, pd.Series[Any]],
    levels: Mapping[str, Any],
    single: dict[str, tuple[NDArray[np.int32], NDArray[Any]]],
) -> tuple[NDArray[np.int32], Grouping]:
    """Codes of the rows of one grouping factor, and its levels by column."""
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
        return codes, grouping
    codes, table = frame.combine([codes for codes, _ in parts], [len(labels) for _, labels in parts])
    return codes, Grouping(bar.groups, tuple(labels for _, labels in parts), table)


def _related(
    bar: Bar, codes: NDArray[np.int32], grouping: Grouping, known: KnownCovariance
) -> tuple[NDArray[np.int32], Grouping]:
    """Codes and levels of a factor in the order of its known covariance, which may have levels without rows."""
    at = known.match(grouping.levels(), bar.group)
    labels = known.levels
    if grouping.labels[0].dtype != object:
        labels = _as_labels(labels.tolist(), grouping.labels[0].dtype)
    return at[codes], Grouping(bar.groups, (labels,), np.arange(len(labels), dtype=np.int32).reshape(-1, 1))


def _as_labels(values: list[Any], dtype: Any) -> NDArray[Any]:
    out = np.empty(len(values), dtype=dtype)
    out[:] = values
    return out


def _check_term(bar: Bar, names: Sequence[str], count: int, n: int | None) -> None:
    """Refuse terms whose variance cannot be told from the residual."""
    shown = f"({bar.effects} {'||' if bar.structure == 'diag' else '|'} {bar.group})"
    if count < 2:
        raise DataError(
            f"the grouping factor {bar.group!r} has a single level in the rows used; a variance between "
            f"groups needs at least two (five or more to be of use). Drop {shown}"
        )
    if n is None:
        return
    if count == n:
        raise DataError(
            f"the grouping factor {bar.group!r} has a level for each of the {n} rows used, so that its "
            f"effects cannot be told from the residuals; drop {shown}, or use a coarser factor"
        )
    width = 1 if bar.structure == "diag" else len(names)
    if count * width >= n and bar.structure not in ("ar1", "hetar1"):
        raise DataError(
            f"the term {shown} has {count} x {width} = {count * width} random effects, but only {n} rows are "
            "used; its variances cannot be told from the residual variance. Use fewer effects in it"
        )
