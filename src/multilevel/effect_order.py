"""Whether the effects of a random term suit its structure: an order for ar1, more than one effect for a correlation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from . import frame
from .covariance import CORRELATED, FREE
from .errors import FormulaError

if TYPE_CHECKING:
    import pandas as pd

    from .design import Term
    from .formula import Bar
    from .plan import Plan

ORDERED = ("ar1", "hetar1")


def check(
    plan: Plan, terms: Sequence[Term], series: Mapping[str, pd.Series[Any]], levels: Mapping[str, Any]
) -> list[str]:
    """Refuse terms that their structure does not fit; sentences on what it takes for granted."""
    out: list[str] = []
    for bar, side, term in zip(plan.formula.bars, plan.sides, terms, strict=True):
        if bar.structure in FREE:
            continue
        if len(term.names) < 2 and bar.structure in CORRELATED:
            _fail(
                f"{bar.structure}() correlates effects, but this term has one ({term.names[0]}); write (1 | "
                f"{bar.group})",
                plan,
                bar,
            )
        if bar.structure in ORDERED:
            column = _position_column(plan, bar, side, term)
            out += _order_of(series[column], column, plan, bar, column in levels)
    return out


def _position_column(plan: Plan, bar: Bar, side: str, term: Term) -> str:
    """The one factor whose levels are the positions."""
    from .matrix import factors_of

    columns = [name for one in factors_of(side) for name in one.columns]
    z = term.Z
    if len(columns) != 1 or z is None or not (((z == 0) | (z == 1)).all() and (z.sum(axis=1) == 1).all()):
        advice = f"{bar.structure}(0 + factor(week) | {bar.group})"
        _fail(
            f"{bar.structure}() needs one 0/1 effect for each position in time and no others; write it like {advice}",
            plan,
            bar,
        )
    return columns[0]


def _order_of(series: pd.Series[Any], name: str, plan: Plan, bar: Bar, stated: bool) -> list[str]:
    kind = frame.column_kind(series, name)
    if kind in ("ordered", "bool", "date") or stated:
        return []
    if kind != "number":
        _fail(
            f"{bar.structure}() takes the levels of {name!r} in their order, but it holds {kind} without one; "
            f"make it an ordered "
            f"categorical, or give levels={{{name!r}: [first, second, ...]}}",
            plan,
            bar,
        )
    steps = np.diff(np.unique(frame.numbers(series, name)))
    if len(steps) and not np.allclose(steps, steps[0]):
        return [
            f"{bar.structure}() takes the levels of {name!r} as equally spaced, though they are not; car1() "
            f"in correlation= uses times."
        ]
    return []


def _fail(message: str, plan: Plan, bar: Bar) -> NoReturn:
    raise FormulaError(message, plan.formula.text, bar.start, bar.end)
