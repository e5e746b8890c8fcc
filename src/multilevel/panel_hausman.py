"""Whether the within and the random-effects estimates disagree: Hausman's test, by differences and by regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .panel_estimates import Estimate, Variances
from .panel_rows import LeastSquares, PanelRows

__all__ = ["Test", "classic", "regression", "robust_wald", "verdict", "wald"]

Array = NDArray[np.float64]
SLIGHT = 1e-9  # share of a variance below which a difference of covariances is rounding
FEW = 30  # groups; with fewer, tests for many groups are rough


@dataclass(frozen=True)
class Test:
    """One test that the estimates have the same expectation.

    Attributes
    ----------
    name : str
    statistic : float
        Chi-square.
    df : int
        Coefficients compared.
    df_resid : float
        Of the F distribution that ``statistic / df`` is referred to; infinite for the chi-square.
    p_value : float
        NaN where the test has none.
    note : str
        Why it has none, or "".
    """

    name: str
    statistic: float
    df: int
    df_resid: float
    p_value: float
    note: str = ""


def classic(within: Estimate, random: Estimate, names: list[str], name: str) -> Test:
    """Hausman's quadratic form in the difference of the estimates, with the difference of their classical covariances."""
    from scipy.special import chdtrc

    first, _, own = within.part(names)
    second, _, other = random.part(names)
    scale = np.sqrt(np.diag(own))
    gap, V = (first - second) / scale, (own - other) / np.outer(scale, scale)
    lowest = float(np.linalg.eigvalsh(V)[0])
    df = len(names)
    if abs(lowest) <= SLIGHT:
        note = "the difference of the covariances is next to singular: the two estimates are all but the same"
        return Test(name, np.nan, df, np.inf, np.nan, note)
    statistic = float(gap @ np.linalg.solve(V, gap))
    p = float(chdtrc(df, statistic)) if statistic >= 0 else np.nan
    if lowest > 0:
        return Test(name, statistic, df, np.inf, p)
    shown = "" if np.isnan(p) else f" (the {p:.3g} that other software prints)"
    note = (
        "the difference of the covariances is not positive definite, so that its chi-square has no p-value to be trusted"
        f"{shown}; read the regression's"
    )
    return Test(name, statistic, df, np.inf, np.nan, note)


def wald(coef: Array, vcov: Array, df_resid: float, name: str) -> Test:
    """Test that all of `coef` (k,) are zero: chi-square, or F with `df_resid`."""
    from scipy.special import chdtrc, fdtrc

    df = len(coef)
    if df_resid < df:
        note = f"there are too few groups to test {df} coefficients together"
        return Test(name, np.nan, df, df_resid, np.nan, note)
    scale = np.sqrt(np.maximum(np.diag(vcov), 0.0))
    if not (scale > 0).all() or np.linalg.eigvalsh(vcov / np.outer(scale, scale))[0] <= SLIGHT:
        return Test(name, np.nan, df, df_resid, np.nan, "the covariance of the coefficients is not positive definite")
    z = coef / scale
    statistic = float(z @ np.linalg.solve(vcov / np.outer(scale, scale), z))
    p = float(chdtrc(df, statistic) if np.isinf(df_resid) else fdtrc(df, df_resid, statistic / df))
    return Test(name, statistic, df, df_resid, p)


def robust_wald(found: LeastSquares, at: list[int], rows: PanelRows, kind: str, name: str) -> Test:
    """Test that the coefficients `at` of a whitened regression are zero, with the covariance asked for.

    Clusters are left out one by one (CR3) in place of Stata's factor, with which the test rejects far too often where
    groups are few; F has the degrees of freedom that are left between groups.
    """
    V = found.jackknife(rows.group) if kind == "group" else found.vcov(kind, rows.clusters(kind))
    if V is None:
        note = "one group alone determines a coefficient, so that its error is not known"
        return Test(name, np.nan, len(at), float(rows.spare), np.nan, note)
    return wald(found.coef[at], V[np.ix_(at, at)], float(rows.spare), name)


def regression(rows: PanelRows, variances: Variances, kind: str) -> list[Test]:
    """Tests of the group means added to the random-effects regression; plain, and with the covariance asked for.

    Periods' means are added but not tested. No tests where the group means would take all that is known between groups.
    Arellano (1993), J. Econometrics 59, 87; Wooldridge (2010), Econometric Analysis of Cross Section and Panel Data, 10.7.3.
    """
    shift = rows.shift
    if rows.spare < 1:
        return []
    X = np.column_stack([rows.X, rows.means(rows.X[:, shift])[rows.group]])
    found = variances.whitened(rows, X)
    at = [rows.X.shape[1] + i for i, column in enumerate(shift) if not rows.period[column]]
    grid = np.ix_(at, at)
    out = [wald(found.coef[at], found.vcov("iid")[grid], np.inf, "regression")]
    if kind != "iid":
        out.append(robust_wald(found, at, rows, kind, "regression, robust"))
    return out


def verdict(tests: Sequence[Test], rows: PanelRows) -> str:
    """What the tests come to, in words."""
    usable = [test for test in tests if test.name.startswith("regression") and not np.isnan(test.p_value)]
    usable = usable or [test for test in tests if not np.isnan(test.p_value)]
    if not usable:
        return "No test could say whether the within and the random-effects estimates disagree; compare them by eye."
    main = usable[-1]
    shown = "p < 0.001" if main.p_value < 0.001 else f"p = {main.p_value:.3f}"
    shown = f"{main.name} test, {shown}"
    if main.p_value < 0.05:
        text = (
            f"The within and the random-effects estimates disagree by more than chance ({shown}): differences between groups "
            "do not tell the same as changes within them, as happens when groups differ in something that is not in the "
            "model and goes with the predictors. The random-effects estimates mix the two; read the within estimates, or "
            "those with Mundlak terms, for what goes with a change within a group."
        )
    else:
        text = (
            f"The within and the random-effects estimates do not disagree by more than chance ({shown}). That is no proof "
            "that they estimate the same: compare the intervals, which say how much they could differ."
        )
    others = [test for test in tests if not np.isnan(test.p_value) and (test.p_value < 0.05) != (main.p_value < 0.05)]
    if others:
        names = ", ".join(f"{test.name}: p = {test.p_value:.3g}" for test in others)
        text += f" Not all tests agree ({names})."
    if rows.count < FEW:
        text += f" With {rows.count} groups the tests are rough."
    return text + " Neither is protected from what changes within groups and is not in the model."
