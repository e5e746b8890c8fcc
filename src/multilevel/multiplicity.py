"""Adjustment of p-values and intervals for asking several questions at once.

Tukey's and Scheffé's methods, Šidák's and Bonferroni's inequalities, and the exact two-sided multivariate t
distribution bound the chance of any false claim in a family and have intervals. Holm's (1979, Scand. J. Statist. 6) and
Benjamini & Hochberg's (1995, JRSS B 57) step-wise methods have none; Bonferroni's intervals stand beside them, as in
emmeans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError, listing, nearest

__all__ = ["ADJUSTMENTS", "Family", "adjust", "check_adjust", "interval_method"]

Array = NDArray[np.float64]
ADJUSTMENTS = ("none", "bonferroni", "holm", "sidak", "tukey", "fdr", "scheffe", "mvt")
POINTS = 1 << 16  # of the quasi-Monte Carlo rule; leaves an error of about 1e-5 in a p-value


@dataclass(frozen=True)
class Family:
    """Questions asked together.

    Attributes
    ----------
    statistic, df : ndarray (m,)
        t statistics and their degrees of freedom (infinite for the normal distribution); NaN where there is no answer.
    covariance : ndarray (m, m)
        Of the estimates, up to a factor.
    means : int or None
        Number of means whose pairwise differences these are; None if they are anything else.
    """

    statistic: Array
    df: Array
    covariance: Array
    means: int | None = None


def check_adjust(method: object) -> str:
    """Return the method if it is one."""
    if method not in ADJUSTMENTS:
        hint = nearest(method, ADJUSTMENTS) or f"allowed are {listing(ADJUSTMENTS)}"
        raise OptionError(f"adjust {method!r} is not known; {hint}")
    return str(method)


def interval_method(method: str) -> str:
    """The method of the intervals beside p-values adjusted by `method`."""
    return "bonferroni" if method in ("holm", "fdr") else method


def adjust(method: str, family: Family, level: float) -> tuple[Array, Array]:
    """Adjusted two-sided p-values, and critical values for simultaneous intervals.

    Parameters
    ----------
    method : {"none", "bonferroni", "holm", "sidak", "tukey", "fdr", "scheffe", "mvt"}
    family : Family
        A family of a single question is not adjusted (but for Scheffé's method, where this changes nothing).
    level : float
        Coverage of all intervals together.

    Returns
    -------
    p_value, critical : ndarray (m,)
        The interval is the estimate plus and minus critical times the standard error.

    Raises
    ------
    OptionError
        For Tukey's method on anything but all pairwise differences.
    """
    if method == "tukey" and family.means is None and len(family.statistic) > 1:
        raise OptionError(
            "adjust='tukey' is for all pairwise comparisons of means only; for these estimates use 'sidak' or 'mvt'"
        )
    p_value, critical = np.full((2, len(family.statistic)), np.nan)
    with np.errstate(invalid="ignore"):
        # a difference of zero with no error has no degrees of freedom and counts for nothing
        asked = np.isfinite(family.statistic) & (family.df > 0)
    if not asked.any():
        return p_value, critical
    t, df = np.abs(family.statistic[asked]), family.df[asked]
    if len(t) == 1:
        method = "none"
    if method == "mvt":
        cov = family.covariance[np.ix_(asked, asked)]
        p_value[asked], critical[asked] = _multivariate_t(t, df, cov, level)
    elif method == "tukey":
        p_value[asked], critical[asked] = _tukey(t, df, family.means or 2, level)
    elif method == "scheffe":
        p_value[asked], critical[asked] = _scheffe(t, df, family.covariance[np.ix_(asked, asked)], level)
    else:
        p_value[asked] = _by_size(method, _two_sided(t, df))
        critical[asked] = _quantile(_share(interval_method(method), level, len(t)), df)
    return p_value, critical


def _two_sided(t: Array, df: Array) -> Array:
    from scipy.special import ndtr, stdtr

    normal = np.isinf(df)
    out: Array = 2 * np.where(normal, ndtr(-t), stdtr(np.where(normal, 1.0, df), -t))
    return out


def _quantile(level: float, df: Array) -> Array:
    """Half-width in standard errors of a two-sided interval."""
    from scipy.special import ndtri, stdtrit

    normal, upper = np.isinf(df), 0.5 + level / 2
    out: Array = np.where(normal, ndtri(upper), stdtrit(np.where(normal, 1.0, df), upper))
    return out


def _share(method: str, level: float, m: int) -> float:
    """Coverage that each of m intervals needs."""
    if method == "bonferroni":
        return 1 - (1 - level) / m
    return float(level ** (1 / m)) if method == "sidak" else level


def _by_size(method: str, p: Array) -> Array:
    """Adjustments that need the p-values alone."""
    m = len(p)
    if method == "bonferroni":
        out = m * p
    elif method == "sidak":
        out = -np.expm1(m * np.log1p(-np.minimum(p, 1 - 1e-16)))
    elif method == "holm":
        order = np.argsort(p)
        out = np.empty(m)
        out[order] = np.maximum.accumulate((m - np.arange(m)) * p[order])
    elif method == "fdr":
        order = np.argsort(p)[::-1]
        out = np.empty(m)
        out[order] = np.minimum.accumulate(m / (m - np.arange(m)) * p[order])
    else:
        out = p
    return np.minimum(out, 1.0)


def _tukey(t: Array, df: Array, means: int, level: float) -> tuple[Array, Array]:
    """Studentized range; Tukey & Kramer's use of it where variances differ."""
    from scipy.stats import studentized_range

    p = np.asarray(studentized_range.sf(np.sqrt(2) * t, means, df), dtype=np.float64)
    points = {value: float(studentized_range.ppf(level, means, value)) for value in np.unique(df).tolist()}
    return np.clip(p, 0.0, 1.0), np.array([points[value] for value in df.tolist()]) / np.sqrt(2)


def _scheffe(t: Array, df: Array, cov: Array, level: float) -> tuple[Array, Array]:
    """Scheffé (1953, Biometrika 40): every linear combination of the questions at once."""
    rank = _root(cov).shape[1]
    return _f_tail(t**2 / rank, rank, df), np.sqrt(rank * _f_quantile(level, rank, df))


def _f_tail(value: Array, r: int, df: Array | float) -> Array:
    from scipy.special import chdtrc, fdtrc

    normal = np.isinf(df)
    out: Array = np.where(normal, chdtrc(r, r * value), fdtrc(r, np.where(normal, 1.0, df), value))
    return out


def _f_quantile(level: float, r: int, df: Array) -> Array:
    from scipy.special import chdtri, fdtri

    normal = np.isinf(df)
    out: Array = np.where(normal, chdtri(r, 1 - level) / r, fdtri(r, np.where(normal, 1.0, df), level))
    return out


def _root(cov: Array) -> Array:
    """(m, r) with full column rank, whose product with its transpose is the correlation matrix."""
    sd = np.sqrt(np.diag(cov))
    values, vectors = np.linalg.eigh(cov / np.outer(sd, sd))
    keep = values > 1e-8 * values[-1]
    out: Array = vectors[:, keep] * np.sqrt(values[keep])
    return out


def _multivariate_t(t: Array, df: Array, cov: Array, level: float) -> tuple[Array, Array]:
    """Exact adjustment: the distribution of the largest of correlated |t|.

    In spherical coordinates the radius is integrated exactly (an F distribution), and only the mean over directions is by
    quasi-Monte Carlo (Genz & Bretz 2009, Computation of Multivariate Normal and t Probabilities, section 4.1). Singular
    correlations, as of all pairwise differences, need nothing special.
    """
    from scipy.optimize import brentq

    root = _root(cov)
    r = root.shape[1]
    longest = _longest(root)

    def beyond(c: float, freedom: float) -> float:
        return float(_f_tail((c / longest) ** 2 / r, r, freedom).mean())

    p = np.array([beyond(c, freedom) for c, freedom in zip(t.tolist(), df.tolist(), strict=True)])
    points = {}
    for freedom in np.unique(df).tolist():
        one = np.array([freedom])
        low = float(_quantile(level, one)[0])
        high = float(_quantile(_share("bonferroni", level, len(t)), one)[0])

        def excess(c: float, freedom: float = freedom) -> float:
            return beyond(c, freedom) - (1 - level)

        # a rule of finitely many points may leave either bound by a hair
        points[freedom] = float(brentq(excess, 0.99 * low, 1.01 * high, xtol=1e-10))
    return p, np.array([points[freedom] for freedom in df.tolist()])


def _longest(root: Array) -> Array:
    """Largest |t| of each direction on the unit sphere, per unit of radius."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    r = root.shape[1]
    if r == 1:
        return np.ones(1)
    if r == 2:  # the directions are a circle, where equal steps are better than any random rule
        angle = (np.arange(POINTS) + 0.5) * np.pi / POINTS
        directions = np.column_stack([np.cos(angle), np.sin(angle)])
    else:
        # without scrambling, the same question has the same answer; the shift keeps points off zero
        directions = ndtri(qmc.Sobol(r, scramble=False).random(POINTS) + 0.5 / POINTS)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    out = np.empty(len(directions))
    block = max(1, (1 << 22) // len(root))
    for start in range(0, len(directions), block):
        out[start : start + block] = np.abs(directions[start : start + block] @ root.T).max(axis=1)
    return out
