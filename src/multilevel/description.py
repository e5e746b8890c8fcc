"""What the data are like before a model: nesting, sizes, holes, outliers, variance within and between groups."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import description_tables as tables
from .description_tables import Factor
from .errors import DataError, OptionError
from .formula import quoted
from .frame import Table, column_kind, label_text, like, missing_mask, numbers
from .screening import group_texts

__all__ = ["Description", "describe"]

FEW = 5  # levels
GRADES = 5  # values: the rarer ones of so few, such as codes and ratings, are no outliers
WIDTH = 100
TITLES = {"variance": "variance, by moments (icc() estimates its shares by a model)"}
SHOWN = 12  # rows of a printed table

OBJECTS = {"a", "b", "relation", "group", "column", "kind", "varies_by", "level", "sd_of"}


@dataclass(frozen=True)
class Description:
    """Result of `describe`; prints as a page. Frames are of the library of the data.

    Attributes
    ----------
    n : int
        Rows.
    structure : frame
        A row for each pair of factors: a, b, relation ("nested": each level of a lies in one level of b; "crossed"; "same"),
        pairs (combinations observed), possible, share (pairs / possible), lone (share of the levels of a that meet one level
        of b).
    groups : frame
        A row for each factor: group, levels, min, median, mean, max (rows per level), single_row (levels of one row),
        missing.
    columns : frame
        A row for each other column: column, kind, distinct, missing, missing_share, varies_by: the coarsest factor
        within whose levels it is constant, else "row" ("nothing" for a constant).
    variance : frame
        A row for each numeric column and factor: column, group, n, mean, sd, within, between (variances, by analysis of
        variance), icc (between / (within + between)).
    outliers : frame
        Rows more than 3 sds from the mean of their level, of numeric columns with six values or more: column, group,
        level (as text), row (position, from 0), value, z, sd_of ("own" in levels of 11 rows or more; "pooled" over all levels
        in smaller ones, which cannot have an outlier by their own sd).
    random : str
        Random intercepts that the structure suggests, such as ``"(1 | batch/cask)"``.
    sentences : tuple of str
    """

    n: int
    structure: Any
    groups: Any
    columns: Any
    variance: Any
    outliers: Any
    random: str
    sentences: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{self.n:,} row{'s' * (self.n != 1)}"]
        for title in ("groups", "structure", "columns", "variance", "outliers"):
            table = getattr(self, title)
            if len(table):
                parts.append(f"{TITLES.get(title, title)}\n{_printed(table)}")
        bullets = [textwrap.fill(one, WIDTH, initial_indent="- ", subsequent_indent="  ") for one in self.sentences]
        return "\n\n".join([*parts, "\n".join(bullets)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def describe(data: Any, groups: str | Iterable[str], columns: Iterable[str] | None = None) -> Description:
    """Describe grouped data before anything is modelled.

    Parameters
    ----------
    data : data frame or dict of columns
    groups : str or list of str
        Grouping factors, such as ``["school", "class"]``; ``"batch:cask"`` for labels that are unique within batches only.
    columns : list of str, optional
        Columns to describe; default all others that hold numbers, text, categories or dates.

    Returns
    -------
    Description

    Raises
    ------
    OptionError, ColumnError, DataError
        For groups or columns that are not there, or hold no levels.

    Examples
    --------
    >>> import multilevel as ml
    >>> found = ml.describe(ml.load("pastes"), ["batch", "sample"])
    >>> found.random
    '(1 | batch) + (1 | sample)'
    >>> found.structure.loc[0, ["a", "relation", "b"]].tolist()
    ['sample', 'nested', 'batch']
    """
    names = group_texts(groups)
    table = Table(data)
    factors = [tables.factor_of(name, table) for name in names]
    if table.n == 0:
        raise DataError("the data have no rows")
    for one in factors:
        if not len(one.levels):
            raise DataError(f"the grouping factor {one.name!r} is missing in every row")
    series = _described(table, names, columns)
    values = {name: numbers(one, name) for name, one in series.items() if column_kind(one, name) in ("number", "bool")}
    pairs, sizes = tables.relations(factors), tables.sizes_of(factors)
    facts = tables.columns_of(series, factors)
    graded = [fact["column"] for fact in facts if fact["distinct"] > GRADES]
    outliers = tables.outliers_of({name: y for name, y in values.items() if name in graded}, factors)
    variances = tables.variances_of(values, factors)
    incomplete = _incomplete(series, factors)
    random = _suggested(factors, pairs)
    sentences = (
        *(_relation(pair, factors) for pair in pairs),
        *_sizes(sizes, table.n),
        *_holes(facts, incomplete, table.n),
        *_infinite(values),
        *_levels(facts, factors),
        *_outlying(outliers),
        f"Random intercepts that this structure suggests: {random}.",
    )
    kind = table.kind
    return Description(
        table.n,
        _frame(kind, pairs, ("a", "b", "relation", "pairs", "possible", "share", "lone")),
        _frame(kind, sizes, tuple(sizes[0])),
        _frame(kind, facts, ("column", "kind", "distinct", "missing", "missing_share", "varies_by")),
        _frame(kind, variances, ("column", "group", "n", "mean", "sd", "within", "between", "icc")),
        _frame(kind, outliers, ("column", "group", "level", "row", "value", "z", "sd_of")),
        random,
        sentences,
    )


def _described(table: Table, groups: Sequence[str], columns: Any) -> dict[str, Any]:
    """Columns to describe; without a choice those that cannot be described (lists, mixed types) are left out."""
    if columns is not None:
        if isinstance(columns, str) or not isinstance(columns, Iterable):
            raise OptionError(f"columns is a list of names, such as ['math', 'ses']; got {columns!r}")
        found: dict[str, Any] = dict(table.load(list(columns), dict.fromkeys(columns, "columns")))
        for name, one in found.items():
            column_kind(one, name)  # raises where it holds what cannot be described
        return found
    parts = {part.strip() for name in groups for part in ([name] if name in table.names else name.split(":"))}
    out = {}
    for name, one in table.load([name for name in table.names if name not in parts]).items():
        try:
            column_kind(one, name)
        except DataError:
            continue
        out[name] = one
    return out


def _incomplete(series: dict[str, Any], factors: Sequence[Factor]) -> int:
    """Rows with a missing value anywhere."""
    holes = np.zeros(len(factors[0].codes), dtype=bool)
    for one in series.values():
        holes |= missing_mask(one)
    for factor in factors:
        holes |= factor.codes < 0
    return int(holes.sum())


def _frame(kind: str, rows: list[dict[str, Any]], names: tuple[str, ...]) -> Any:
    columns = {}
    for name in names:
        values = [row[name] for row in rows]
        if name in OBJECTS:
            array = np.empty(len(values), dtype=object)
            array[:] = [label_text(one) for one in values] if name == "level" else values
        else:
            array = np.array(values)
        columns[name] = array
    return like(kind, columns)


# -- sentences ------------------------------------------------------------------------------------------------


def _relation(pair: dict[str, Any], factors: Sequence[Factor]) -> str:
    a, b = pair["a"], pair["b"]
    if pair["relation"] == "same":
        return f"{a} and {b} are the same grouping under two names; use one of them."
    if pair["relation"] == "nested":
        return f"{a} is nested in {b}: each of its levels lies in a single level of {b}."
    shown = f"{pair['pairs']:,} of {pair['possible']:,} combinations observed"
    if pair["lone"] > 0.5:
        stray = f"{1 - pair['lone']:.0%} of its levels meet several levels of {b}"
        return f"{a} is almost nested in {b}, but {stray} ({shown}); check these."
    if pair["share"] < 1:
        return f"{a} and {b} are crossed ({shown})."
    few = min((next(f for f in factors if f.name == name) for name in (a, b)), key=lambda f: len(f.levels))
    other = b if few.name == a else a
    text = f"{a} and {b} are crossed, every level with every other ({shown})."
    one = f"{few.name} {label_text(few.levels[0])}"
    return f"{text} If {one} is a different thing in each {other}, name it {other}:{few.name}."


def _sizes(sizes: list[dict[str, Any]], n: int) -> list[str]:
    out = []
    for one in sizes:
        name = one["group"]
        if one["levels"] == n - one["missing"]:
            out.append(f"Every row is a level of {name} of its own, so that it cannot be told from the residual.")
            continue
        even = one["min"] == one["max"]
        range_ = f"{one['min']:,} to {one['max']:,} rows each, median {one['median']:g}"
        count = f"{one['levels']:,} level{'s' * (one['levels'] != 1)}"
        rows = "one row" if one["min"] == 1 else f"{one['min']:,} rows"
        out.append(f"{name} has {count} of {rows} each." if even else f"{name} has {count} of {range_}.")
        if one["levels"] == 1:
            out.append(f"A single level of {name} has none to be compared with; leave it out of a model.")
        elif one["levels"] < FEW:
            out.append(f"So few levels of {name} say little of a variance; enter it as a fixed effect.")
        if one["single_row"]:
            lone = f"{one['single_row']:,} level{'s' * (one['single_row'] != 1)} of {name} with a single row"
            out.append(f"{lone}: nothing is learnt there of the variance within levels.")
        if one["missing"]:
            rows = "one row" if one["missing"] == 1 else f"{one['missing']:,} rows"
            out.append(f"{name} is missing in {rows}; a model leaves out what it cannot place.")
    return out


def _holes(facts: list[dict[str, Any]], incomplete: int, n: int) -> list[str]:
    worst = sorted((one for one in facts if one["missing"]), key=lambda one: -one["missing"])
    if not incomplete:
        return ["No value is missing."]
    empty = [one["column"] for one in worst if one["missing"] == n]
    shown = ", ".join(f"{one['column']} {one['missing_share']:.1%}" for one in worst[:3])
    more = f" and {len(worst) - 3} more columns" if len(worst) > 3 else ""
    text = f"{incomplete:,} of {n:,} rows miss a value somewhere"
    out = [f"{text}{f' ({shown}{more})' if shown else ''}; a model leaves out those that miss one of its own columns."]
    return [*out, *([f"Missing in every row, so that no model can use them: {', '.join(empty)}."] if empty else [])]


def _infinite(values: dict[str, Any]) -> list[str]:
    names = [name for name, y in values.items() if np.isinf(y).any()]
    return [f"Infinite values, left out here and refused by a model: {', '.join(names)}."] if names else []


def _levels(facts: list[dict[str, Any]], factors: Sequence[Factor]) -> list[str]:
    out = []
    for one in factors:
        names = [fact["column"] for fact in facts if fact["varies_by"] == one.name]
        if names:
            shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            out.append(f"Constant within {one.name}, so that they explain differences between its levels only: {shown}.")
    constant = [fact["column"] for fact in facts if fact["distinct"] == 1]
    return [*out, *([f"Constant in all rows: {', '.join(constant)}."] if constant else [])]


def _outlying(outliers: list[dict[str, Any]]) -> list[str]:
    if not outliers:
        return ["No value lies more than 3 sds from the mean of its group."]
    far = max(outliers, key=lambda one: abs(one["z"]))
    count = len({(one["column"], one["row"]) for one in outliers})
    many = f"{count:,} values lie" if count > 1 else "One value lies"
    where = f"{far['z']:+.1f} sds from {far['group']} {label_text(far['level'])}"
    return [
        f"{many} more than 3 sds from the mean of a group; the farthest is {far['column']} = {far['value']:g} in row "
        f"{far['row']} ({where})."
    ]


def _suggested(factors: Sequence[Factor], pairs: list[dict[str, Any]]) -> str:
    """A random intercept for each factor with enough levels that is neither another's second name nor a level per row."""
    twins = {pair["b"] for pair in pairs if pair["relation"] == "same"}
    kept = [f for f in factors if f.name not in twins and FEW <= len(f.levels) < int(np.sum(f.codes >= 0))]
    if not kept:
        return "none"
    return " + ".join(f"(1 | {f.name if ':' in f.name else quoted(f.name)})" for f in kept)


# -- printing -------------------------------------------------------------------------------------------------


def _printed(table: Any) -> str:
    """A frame of any library as aligned text, numbers to four digits."""
    names = list(map(str, getattr(table, "column_names", None) or table.columns))
    columns = [np.asarray(table[name].to_numpy() if hasattr(table[name], "to_numpy") else table[name]) for name in names]
    count = min(len(columns[0]), SHOWN)
    cells = [[name, *(_cell(value) for value in column[:count])] for name, column in zip(names, columns, strict=True)]
    widths = [max(map(len, one)) for one in cells]
    left = [column.dtype == object for column in columns]
    padded = [
        [cell.ljust(w) if text else cell.rjust(w) for cell in one]
        for one, w, text in zip(cells, widths, left, strict=True)
    ]
    lines = ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]
    more = len(columns[0]) - count
    return "\n".join([*lines, *([f"... and {more:,} more"] if more else [])])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
