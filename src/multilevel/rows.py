"""The rows that can be used, and what stands in them: response, weights, offset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import frame
from .errors import DataError
from .expressions import Expression, evaluate
from .plan import Plan

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["response_values", "total_offset", "usable_rows", "weight_values"]

Matrix = NDArray[np.float64]
Rows = NDArray[np.int64]


def usable_rows(
    n: int, plan: Plan, series: Mapping[str, pd.Series[Any]], extra: Mapping[str, Matrix], missing: str
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
                f"{dropped} of {n} rows have missing values ({shown}), first row {first} (counting from 0); "
                "fill them, or use missing='drop'"
            )
        if dropped == n:
            worst = max(counts, key=lambda name: counts[name])
            raise DataError(
                f"no row is left: every row has a missing value ({shown}); column {worst!r} alone is missing "
                f"in {counts[worst]} of {n}"
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
    plan: Plan, series: Mapping[str, pd.Series[Any]], extra: Mapping[str, Matrix], keep: NDArray[np.bool_]
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


def response_values(plan: Plan, series: Mapping[str, pd.Series[Any]], rows: Rows) -> Matrix:
    name = plan.formula.response
    values: dict[str, Any] = {}
    for one in plan.response.columns:
        kind = frame.column_kind(series[one], one)
        if kind == "bool" and plan.response.plain:
            raise DataError(
                f"the response {one!r} holds True and False; yes/no outcomes need the family binomial, which "
                "a gaussian model is not. To treat it as 0 and 1 write astype(float)"
            )
        if kind not in ("number", "bool"):
            where = "" if plan.response.plain else f"the response {name}"
            advice = "the response of a gaussian model is a number; classes need another family"
            raise frame.not_numeric(series[one], one, kind, where, rows, advice)
        values[one] = frame.numbers(series[one], one)
    raw = values[plan.response.columns[0]] if plan.response.plain else _computed(plan.response, values)
    try:
        y = np.array(raw, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"the response {name!r} does not give one column of numbers") from None
    if y.shape != (len(rows),):
        raise DataError(f"the response {name} gives {y.shape} values for {len(rows)} rows")
    _finite(y, f"the response {name!r}", rows, values)
    if (y == y[0]).all():
        raise DataError(
            f"the response {name!r} is {y[0]:g} in all {len(y)} row{'s' * (len(y) != 1)} used; there is nothing to explain"
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


def weight_values(
    plan: Plan, series: Mapping[str, pd.Series[Any]], extra: Mapping[str, Matrix]
) -> Matrix | None:
    if plan.weights:
        return np.array(frame.numbers(series[plan.weights], plan.weights))
    return extra.get("weights")


def total_offset(
    plan: Plan,
    parts: Sequence[Matrix],
    series: Mapping[str, pd.Series[Any]],
    extra: Mapping[str, Matrix],
    rows: Rows,
) -> Matrix | None:
    """Sum of offset() in the formula and of the argument."""
    every = [part[:, 0] for part in parts]
    if plan.offset:
        every.append(frame.numbers(series[plan.offset], plan.offset, rows))
    if "offset" in extra:
        every.append(extra["offset"])
    if not every:
        return None
    total = np.array(every[0])
    for part in every[1:]:
        total += part
    _finite(total, "the offset", rows)
    return total
