"""Intervals from bootstrap draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, MultilevelError, OptionError, listing, nearest
from .inference import check_level
from .resampling import Cases

if TYPE_CHECKING:
    from .bootstrap import Bootstrap

Array = NDArray[np.float64]

KINDS = ("percentile", "bca", "basic", "normal")


def interval(boot: Bootstrap, level: float, kind: str) -> tuple[Array, Array]:
    """(m,) lower and upper limits of every column; NaN where draws or what the kind needs are missing."""
    from scipy.special import ndtri

    check_level(level)
    check_kind(kind)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    accelerations = acceleration(boot) if kind == "bca" else np.zeros(len(boot.names))
    out = np.full((2, len(boot.names)), np.nan)
    for i, estimate in enumerate(boot.estimates):
        values = boot.draws[:, i]
        values = values[np.isfinite(values)]
        if len(values) < 2 or (kind != "percentile" and np.isnan(estimate)):
            continue
        if kind == "normal":
            out[:, i] = 2 * estimate - values.mean() + ndtri(tails) * values.std(ddof=1)
            continue
        shares = tails if kind != "bca" else corrected(tails, values, float(estimate), float(accelerations[i]))
        limits = np.quantile(values, shares, method="weibull")  # rank (n + 1) p, as Davison & Hinkley
        out[:, i] = 2 * estimate - limits[::-1] if kind == "basic" else limits
    return out[0], out[1]


def check_kind(kind: object) -> None:
    """Refuse an interval that is not known."""
    if kind not in KINDS:
        hint = nearest(kind, KINDS) or "allowed are " + listing(KINDS)
        raise OptionError(f"the kind of interval {kind!r} is not known; {hint}")


def corrected(tails: Array, values: Array, estimate: float, acceleration: float) -> Array:
    """Shares of the draws that BCa takes for `tails` (Efron 1987, eq. 6.8)."""
    from scipy.special import ndtr, ndtri

    below = (np.sum(values < estimate) + 0.5 * np.sum(values == estimate)) / len(values)
    bias = ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    z = bias + ndtri(tails)
    return np.asarray(ndtr(bias + z / np.maximum(1 - acceleration * z, 1e-6)))


def acceleration(boot: Bootstrap) -> Array:
    """(m,) skewness of the jackknife's influence over six: the estimate with groups left out one by one.

    Raises
    ------
    DataError
        If nothing can be left out: no groups, or no fit without some.
    """
    values = jackknife(boot)
    out = np.zeros(values.shape[1])
    for i, column in enumerate(values.T):
        column = column[np.isfinite(column)]
        if len(column) < 2:
            continue
        influence = column.mean() - column
        square = float(np.sum(influence**2))
        if square > 0:
            out[i] = float(np.sum(influence**3)) / (6 * square**1.5)
    return out


def jackknife(boot: Bootstrap) -> Array:
    """(levels or blocks, m) values without each."""
    from .bootstrap import fitted_rows, named
    from .sd_scale import estimates, parameters_of

    if not boot.group:
        raise DataError("BCa intervals leave out groups, and this model has none; use kind='percentile'")
    if boot.fit.design.known:
        raise DataError(
            "BCa intervals leave out groups, and levels with known covariances belong together; use percentile"
        )
    cases = Cases(boot.fit.rows_of_data(), boot.group)
    every = parameters_of(boot.fit)
    rows = []
    for levels in cases.blocks():
        try:
            fit = fitted_rows(boot.fit, cases, cases.without(levels))
            rows.append(estimates(every, fit) if boot.statistic is None else named(boot.statistic(fit))[1])
        except MultilevelError:  # a group without which the model has no fit says nothing about skewness
            continue
    if len(rows) < 3:
        raise DataError(
            f"BCa intervals need fits with groups of {boot.group!r} left out, and {len(rows)} of {len(cases.rows)} could be "
            "made; use kind='percentile'"
        )
    return np.array(rows)


def table(boot: Bootstrap) -> str:
    """Estimate, bias, standard error and 95 % percentile interval of every column, as text."""
    low, high = interval(boot, 0.95, "percentile")
    with np.errstate(invalid="ignore"):
        known = np.isfinite(boot.draws)
        count = known.sum(axis=0)
        filled = np.where(known, boot.draws, 0.0)
        mean = np.where(count > 0, filled.sum(axis=0) / np.maximum(count, 1), np.nan)
        spread = np.where(known, boot.draws - mean, 0.0)
        std_error = np.where(count > 1, np.sqrt((spread**2).sum(axis=0) / np.maximum(count - 1, 1)), np.nan)
    columns = (boot.estimates, mean - boot.estimates, std_error, low, high)
    head = ("", "estimate", "bias", "std_error", "2.5 %", "97.5 %")
    rows = [head, *((n, *(f"{c[i]:.5g}" for c in columns)) for i, n in enumerate(boot.names))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(v.rjust(w) for v, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells))
    good = len(boot) - len(boot.failures)
    for name, k in zip(boot.names, count, strict=True):
        if k < good:
            why = " (an sd is zero there)" if name.startswith("cor(") else ""
            lines.append(f"{name} does not exist in {good - k:,} replicate{'s' * (good - k != 1)}{why}")
    return "\n".join(lines)
