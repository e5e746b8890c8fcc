"""What a formula needs of the data, worked out before any row is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .errors import ColumnError, DataError, FormulaError, OptionError, listing, nearest
from .expressions import Expression, analyse
from .formula import Formula, model_text, quoted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Plan", "arrays", "check_levels", "load", "make_plan"]

Matrix = NDArray[np.float64]
_DOT = re.compile(r"`[^`]*`|'[^']*'|\"[^\"]*\"|(?<![\w.])\.(?![\w.])")


@dataclass
class Plan:
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
    also: Mapping[str, str]  # columns that only the residual's structure needs, with where
    extra: dict[str, str]  # further fixed sides by what they are of: dispersion, zi


def make_plan(
    formula: Formula,
    names: Sequence[str],
    weights: Any,
    offset: Any,
    also: Mapping[str, str] | None = None,
    extra: Mapping[str, str] | None = None,
    gaussian: bool = True,
) -> Plan:
    from .matrix import factors_of

    response = analyse(formula.response, response=True)
    if gaussian and (re.search(r"\b(cbind|trials)\s*\(", formula.response) or "|" in response.code):
        raise FormulaError(
            f"the response {formula.response} counts successes: that needs the family binomial, not a gaussian "
            "model (family='binomial')",
            formula.text,
            formula.text.find(formula.response),
        )
    grouping = list(dict.fromkeys(name for bar in formula.bars for name in bar.groups))
    named = {
        "weights": weights if isinstance(weights, str) else None,
        "offset": offset if isinstance(offset, str) else None,
    }
    also = also or {}
    taken = {*response.columns, *grouping, *also, *(name for name in named.values() if name)}
    fixed = _without_dot(formula, names, taken)
    sides = [model_text(bar.effects, formula.text, bar.start) for bar in formula.bars]
    offsets = [f"0 + I({analyse(text).text})" for text in formula.offsets]
    more = dict(extra or {})
    expressions = [one for side in dict.fromkeys([fixed, *sides, *offsets, *more.values()]) for one in factors_of(side)]
    return Plan(
        formula, response, fixed, sides, offsets, grouping, expressions, named["weights"], named["offset"], also, more
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


def load(table: frame.Table, plan: Plan) -> dict[str, pd.Series[Any]]:
    where = {name: one.text for one in plan.expressions for name in one.columns}
    where |= {name: plan.response.text for name in plan.response.columns}
    where |= plan.also
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


def check_levels(levels: Mapping[str, Any] | None, what: str, plan: Plan) -> None:
    known = [*(name for one in plan.expressions for name in one.columns), *plan.grouping, *plan.also]
    for name in levels or {}:
        if name not in known:
            hint = nearest(name, known) or f"the formula uses {listing(dict.fromkeys(known))}"
            raise ColumnError(f"{what} names {name!r}, which is no predictor or group of the formula; {hint}")
    for name, values in (levels or {}).items():
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise OptionError(f"levels of {name!r} must be a list of labels, not {values!r}")


def arrays(table: frame.Table, data: Any, weights: Any, offset: Any) -> dict[str, Matrix]:
    """Weights and offset given as arrays, of the length of the input."""
    out: dict[str, Matrix] = {}
    for what, given in (("weights", weights), ("offset", offset)):
        if given is None or isinstance(given, str):
            continue
        index = getattr(given, "index", None)
        if (
            table.kind == "pandas"
            and index is not None
            and hasattr(index, "equals")
            and not index.equals(data.index)
        ):
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
                f"{what} must have one value for each of the {table.n} rows, not shape {values.shape}"
            )
        out[what] = values
    return out
