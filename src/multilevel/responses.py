"""What stands left of the tilde for a family that is not Gaussian: successes, counts, proportions, categories."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import frame
from .errors import DataError, FormulaError, listing
from .expressions import analyse, evaluate
from .families import COUNTS, TRIALS, Family

if TYPE_CHECKING:
    import pandas as pd

    from .design import Design
    from .plan import Plan

Array = NDArray[np.float64]

_CBIND = re.compile(r"\s*cbind\s*\((.*)\)\s*$", re.DOTALL)
_TRIALS = re.compile(r"(.*)\|\s*trials\s*\((.*)\)\s*$", re.DOTALL)
TWO = 1e-8  # how far a count may lie from a whole number


@dataclass(frozen=True)
class Response:
    """A response on the rows used.

    Attributes
    ----------
    y : (n,) array
        Successes, counts, values, or numbers of categories from zero.
    trials : (n,) array or None
    labels : tuple of str
        Categories in their order (ordinal), or (failure, success) of a two-valued response; else empty.
    weights : (n,) array or None
        Prior weights that are left once proportions have used theirs as trials.
    messages : tuple of str
    """

    y: Array
    trials: Array | None
    labels: tuple[str, ...]
    weights: Array | None
    messages: tuple[str, ...] = ()


def read(
    plan: Plan, series: Mapping[str, pd.Series[Any]], rows: NDArray[Any], family: Family, weights: Array | None
) -> Response:
    """The response as the family takes it.

    Raises
    ------
    DataError
        Where a value is impossible for the family, with its row.
    """
    text = plan.formula.response
    if (found := _CBIND.match(text)) is not None:
        parts = _arguments(found[1])
        if family.name not in TRIALS:
            _wrong(plan, f"{text} counts successes and failures, which family {family.name!r} does not take")
        if len(parts) != 2:
            _wrong(plan, f"cbind() takes two columns, successes and failures, not {len(parts)}")
        good, bad = (_values(part, series) for part in parts)
        _check(good, rows, text, "the number of successes", low=0, whole=True)
        _check(bad, rows, text, "the number of failures", low=0, whole=True)
        _differ(good, good + bad, text)
        return Response(good, good + bad, (), weights)
    if (found := _TRIALS.match(text)) is not None:
        if family.name not in TRIALS:
            _wrong(plan, f"{text} counts successes among trials, which family {family.name!r} does not take")
        good, trials = _values(found[1], series), _values(found[2], series)
        _check(trials, rows, text, "the number of trials", low=0, whole=True)
        _check(good, rows, text, "the number of successes", low=0, whole=True)
        _refuse(good > trials, rows, f"the response {text}", good, "at most the number of trials")
        _differ(good, trials, text)
        return Response(good, trials, (), weights)
    _no_bare_bar(plan, text)
    name = plan.response.columns[0]
    kind = frame.column_kind(series[name], name) if plan.response.plain else "number"
    if family.name == "ordinal":
        return _categories(series[name], name, kind, weights, plan, rows)
    if kind not in ("number", "bool"):
        if family.name != "binomial":
            raise frame.not_numeric(series[name], name, kind, "", rows, f"family {family.name!r} takes numbers")
        return _two_values(series[name], name, weights, rows)
    y = _values(text, series)
    if family.name in TRIALS:
        return _successes(y, rows, text, family, weights)
    _possible(y, rows, text, family)
    return Response(y, None, (), weights)


def _differ(good: Array, trials: Array, text: str) -> None:
    """Successes and failures must both occur."""
    what = "trial" if not trials.any() else "success" if not good.any() else "failure" if (good == trials).all() else ""
    if what:
        raise DataError(
            f"the response {text} counts no {what} in any of the {len(good)} rows used; there is nothing to explain"
        )


def _wrong(plan: Plan, message: str) -> NoReturn:
    raise FormulaError(message, plan.formula.text, 0, len(plan.formula.response))


def _no_bare_bar(plan: Plan, text: str) -> None:
    """Refuse ``s | size``, which is meant as successes among trials; ``(a > 1) | (b > 2)`` is one condition or the other."""
    parts = [part.strip() for part in _arguments(text, "|")]
    if len(parts) > 1 and not all(part.startswith(("(", "~")) for part in parts):
        _wrong(
            plan,
            f"the response {text} is no column; successes among trials are written {parts[0]} | trials({parts[1]}), and a "
            "condition or another with parentheses, (a > 1) | (b > 1)",
        )


def _arguments(text: str, mark: str = ",") -> list[str]:
    """Arguments between the commas, or other marks, that stand outside parentheses."""
    out, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == mark and depth == 0:
            out.append(text[start:i])
            start = i + 1
    return [*out, text[start:]]


def _values(text: str, series: Mapping[str, pd.Series[Any]]) -> Array:
    from .matrix import functions

    expression = analyse(text.strip(), response=True)
    values = {name: frame.numbers(series[name], name) for name in expression.columns}
    raw = values[expression.columns[0]] if expression.plain else evaluate(expression, values, functions())
    size = len(next(iter(series.values())))
    return np.broadcast_to(np.asarray(raw, dtype=np.float64), (size,)).copy()


def _check(values: Array, rows: NDArray[Any], text: str, what: str, low: float, whole: bool) -> None:
    bad = ~(values >= low) | ~np.isfinite(values)
    if whole:
        finite = np.where(bad, 0.0, values)
        bad |= np.abs(finite - np.round(finite)) > TWO
    _refuse(bad, rows, f"{what} in {text}", values, f"a whole number of at least {low:g}")


def _refuse(bad: NDArray[Any], rows: NDArray[Any], what: str, values: Array, allowed: str) -> None:
    at = np.flatnonzero(bad)
    if len(at):
        raise DataError(
            f"{what} is {values[at[0]]:g} in row {int(rows[at[0]])} (counting from 0); it must be {allowed}"
        )


def _possible(y: Array, rows: NDArray[Any], text: str, family: Family) -> None:
    what = f"the response {text!r}"
    if family.name in COUNTS:
        _check(y, rows, repr(text), f"the response of family {family.name!r}", low=0, whole=True)
        if family.zero == "hurdle" and not (y > 0).any():
            raise DataError(f"{what} is 0 in every row used, so there are no counts beyond the hurdle to model")
        if family.zero == "hurdle" and y.max() == 1:
            raise DataError(
                f"every count of {what} above zero is 1, so that nothing is left to model beyond the hurdle; use family "
                "'binomial'"
            )
    elif family.name in ("gamma", "inverse_gaussian", "lognormal"):
        _refuse(~(y > 0) | ~np.isfinite(y), rows, what, y, f"greater than zero for family {family.name!r}")
    elif family.name == "tweedie":
        _refuse(~(y >= 0) | ~np.isfinite(y), rows, what, y, "zero or more, and finite, for family 'tweedie'")
    elif family.name == "beta":
        bad = ~((y > 0) & (y < 1))
        _refuse(bad, rows, what, y, "between 0 and 1, both excluded, for family 'beta' (shrink exact 0 and 1 a little)")
    else:
        _refuse(~np.isfinite(y), rows, what, y, "a finite number")
    if (y == y[0]).all():
        raise DataError(f"{what} is {y[0]:g} in all {len(y)} rows used; there is nothing to explain")


def _successes(y: Array, rows: NDArray[Any], text: str, family: Family, weights: Array | None) -> Response:
    """0/1, or proportions whose weights are numbers of trials."""
    allowed = "0 or 1, a proportion with weights= its number of trials, cbind(successes, failures) or successes | trials(n)"
    values = np.unique(y)
    if len(values) == 2 and np.isfinite(values).all():
        allowed = f"0 or 1; of the two values it has, take one as success: {text} == {values[1]:g} ~ ..."
    _refuse(~((y >= 0) & (y <= 1)), rows, f"the response {text!r} of family {family.name!r}", y, allowed)
    between = (y > 0) & (y < 1)
    if not between.any():
        if (y == y[0]).all():
            raise DataError(f"the response {text!r} is {y[0]:g} in all {len(y)} rows used; there is nothing to explain")
        return Response(y, None, (), weights)
    if weights is None:
        first = int(np.flatnonzero(between)[0])
        raise DataError(
            f"the response {text!r} is {y[first]:g} in row {int(rows[first])} (counting from 0): a proportion "
            f"needs its number of "
            "trials, as weights= or as cbind(successes, failures)"
        )
    good = y * weights
    uneven = (np.abs(good - np.round(good)) > 1e-6 * np.maximum(weights, 1)) | (
        np.abs(weights - np.round(weights)) > TWO
    )
    _refuse(uneven, rows, f"the response {text!r} times its weight", good, "a whole number of successes")
    return Response(np.round(good), np.round(weights), (), None)


def _two_values(series: pd.Series[Any], name: str, weights: Array | None, rows: NDArray[Any]) -> Response:
    codes, labels = frame.factor(series, name)
    texts = tuple(frame.label_text(label) for label in labels.tolist())
    if len(texts) != 2:
        shown = ", ".join(map(repr, texts[:5]))
        where = ""
        if len(texts) > 2:
            _, first = np.unique(codes, return_index=True)
            third = int(np.sort(first)[2])
            where = f"; the third of them is {texts[codes[third]]!r} in row {int(rows[third])} (counting from 0)"
        raise DataError(
            f"the response {name!r} has {len(texts)} value{'s' * (len(texts) != 1)} ({shown}"
            f"{', ...' * (len(texts) > 5)}){where}; family 'binomial' takes two. Ordered categories need family 'ordinal'"
        )
    order = "in alphabetical order"
    if frame.column_kind(series, name) in ("category", "ordered"):
        order = "in the order of its categories"
    elif series.attrs.get("unordered"):
        order = "in alphabetical order; a Categorical of polars has no other, an Enum has"
    message = f"{name!r}: {texts[1]!r} counts as success, {texts[0]!r} as failure ({order})."
    return Response(codes.astype(np.float64), None, texts, weights, (message,))


def _categories(
    series: pd.Series[Any], name: str, kind: str, weights: Array | None, plan: Plan, rows: NDArray[Any]
) -> Response:
    if not plan.response.plain:
        _wrong(plan, "the response of an ordinal model is one column of ordered categories")
    if kind not in ("number", "ordered", "bool") and not series.attrs.get("enum"):
        what = {"category": "categories", "date": "dates"}.get(kind, kind)
        raise DataError(
            f"the response {name!r} holds {what} without an order; family 'ordinal' takes whole numbers, a polars Enum or "
            f"pd.Categorical({name}, categories=[lowest, ..., highest], ordered=True)"
        )
    if kind == "number":
        values = frame.numbers(series, name)
        part = np.flatnonzero(~np.isfinite(values) | (values != np.round(np.where(np.isfinite(values), values, 0.0))))
        if len(part):
            raise DataError(
                f"the response {name!r} is {values[part[0]]:g} in row {int(rows[part[0]])} (counting from 0); "
                "family 'ordinal' takes an ordered categorical or whole numbers"
            )
    codes, labels = frame.factor(series, name)
    if len(labels) < 3:
        raise DataError(
            f"the response {name!r} has {len(labels)} categor{'y' if len(labels) == 1 else 'ies'}; family 'ordinal' takes "
            "three or more (two: 'binomial')"
        )
    texts = tuple(frame.label_text(label) for label in labels.tolist())
    trials = np.full(len(codes), float(len(texts)))
    return Response(codes.astype(np.float64), trials, texts, weights, _unused(series, name, texts))


def _unused(series: pd.Series[Any], name: str, used: tuple[str, ...]) -> tuple[str, ...]:
    """What there is to say of declared categories that no row is of."""
    declared = getattr(getattr(series, "cat", None), "categories", ())
    lost = [text for text in map(frame.label_text, declared) if text not in used]
    if not lost:
        return ()
    many = len(lost) > 1
    return (
        f"Categor{'ies' if many else 'y'} {listing(lost)} of the response {name!r} {'have' if many else 'has'} no row among "
        f"those used and {'are' if many else 'is'} left out.",
    )


def labelled(design: Design, data: Any, y: Array) -> Any:
    """Numbers of categories as values of the ordinal response they are of: numbers, or an ordered Categorical.

    Parameters
    ----------
    design : Design
    data : data frame or None
        What the design was made of; without it the categories are texts.
    y : (n_input,) array
        Numbers of categories from zero; NaN where there is none.
    """
    import pandas as pd

    name, labels, kind = design.response.strip().strip("`"), np.array(design.labels, dtype=object), "text"
    table = None if data is None else frame.Table(data)
    if table is not None and name in table.names:
        series = table.load([name])[name].iloc[design.rows]
        found = frame.factor(series, name)[1]
        if tuple(map(frame.label_text, found.tolist())) == design.labels:
            labels, kind = found, frame.column_kind(series, name)
    codes = np.where(np.isnan(y), -1, y).astype(np.intp)
    if kind == "number":
        values = np.where(codes < 0, np.nan, np.asarray(labels, dtype=np.float64)[codes])
        return values if (codes < 0).any() else values.astype(np.int64)
    return pd.Categorical.from_codes(codes, categories=pd.Index(list(labels)), ordered=True)
