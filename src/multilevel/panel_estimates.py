"""The estimators of a panel: pooled, between, random effects, with Mundlak's terms, within."""

from __future__ import annotations

import keyword
import re
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, OptionError
from .panel_rows import LeastSquares, PanelRows, cluster_count, least_squares
from .rank import dependent_columns

if TYPE_CHECKING:
    from .fit import Fit

__all__ = ["Estimate", "Variances", "between", "of_fit", "pooled", "random_variances", "swamy_arora", "within"]

Array = NDArray[np.float64]
LARGE, SMALL = 1e5, 1e-3


@dataclass(frozen=True, eq=False)
class Estimate:
    """Coefficients of one estimator.

    Attributes
    ----------
    names : tuple of str
    coef : ndarray (k,)
    vcov : ndarray (k, k)
        Of the kind that was asked for.
    plain : ndarray (k, k)
        With independent rows of one variance (around the random effects, where there are any).
    df : ndarray (k,)
        Of t intervals and tests.
    n : int
        Rows used; groups, for the between estimate.
    model : object
        What was fitted: a `LeastSquares`, a `Fit` or a pyfixest `Feols`.
    """

    names: tuple[str, ...]
    coef: Array
    vcov: Array
    plain: Array
    df: Array
    n: int
    model: Any

    def part(self, names: list[str]) -> tuple[Array, Array, Array]:
        """Coefficients of `names`, with the two covariances."""
        at = [self.names.index(name) for name in names]
        grid = np.ix_(at, at)
        return self.coef[at], self.vcov[grid], self.plain[grid]


@dataclass(frozen=True)
class Variances:
    """Variances of the random-effects model: between groups, and of rows within."""

    group: float
    residual: float

    def theta(self, rows: PanelRows) -> Array:
        """Share (n,) of its group's mean that generalised least squares takes off a row."""
        return np.asarray(1 - np.sqrt(self.residual / (self.residual + rows.sizes * self.group)))[rows.group]

    def whitened(self, rows: PanelRows, X: Array) -> LeastSquares:
        """Generalised least squares on the columns of X (n, p)."""
        theta = self.theta(rows)[:, None]
        columns = np.column_stack([rows.y, X])
        columns = columns - theta * rows.means(columns)[rows.group]
        return least_squares(columns[:, 1:], columns[:, 0])


def _of_least_squares(names: tuple[str, ...], found: LeastSquares, rows: PanelRows, kind: str) -> Estimate:
    clusters = rows.clusters(kind)
    df = cluster_count(clusters) - 1 if clusters else found.df
    plain, n = found.vcov("iid"), len(found.X)
    return Estimate(names, found.coef, found.vcov(kind, clusters), plain, np.full(len(names), float(df)), n, found)


def pooled(rows: PanelRows, kind: str) -> Estimate:
    """Least squares on all rows, blind to groups."""
    return _of_least_squares(rows.names, least_squares(rows.X, rows.y), rows, kind)


def between(rows: PanelRows, kind: str) -> Estimate | None:
    """Least squares on the means of groups, each counted once; None where there are too few groups."""
    means, kept = rows.across
    if rows.spare < 1:
        return None
    found = least_squares(means[:, 1:][:, kept], means[:, 0])
    names = tuple(rows.names[i] for i in kept)
    robust = found.vcov("iid" if kind == "iid" else "hetero")
    return Estimate(
        names, found.coef, robust, found.vcov("iid"), np.full(len(kept), float(found.df)), len(means), found
    )


def random_variances(fit: Fit) -> Variances:
    """Variances of a fit with one random intercept."""
    return Variances(float(fit.random_cov()[0][0, 0]), fit.sigma**2)


def of_fit(fit: Fit, rows: PanelRows, kind: str) -> Estimate:
    """Estimates of a fit with a random intercept; covariances other than its own by its generalised least squares."""
    found = random_variances(fit).whitened(rows, fit.design.X)
    plain = fit.vcov()
    if kind == "iid":
        columns = fit.fixef_columns()
        df = np.asarray(columns["df"])[np.isfinite(columns["estimate"])]
        return Estimate(fit.design.names, found.coef, plain, plain, df, len(rows.y), fit)
    robust = _of_least_squares(fit.design.names, found, rows, kind)
    return Estimate(robust.names, robust.coef, robust.vcov, plain, robust.df, robust.n, fit)


def swamy_arora(rows: PanelRows) -> Variances:
    """Variances by the residuals of the within and the between regression.

    Unbalanced panels: Baltagi & Chang (1994), J. Econometrics 62, 67, as in R's plm; in balanced ones this is Swamy & Arora
    (1972), Econometrica 40, 261. A negative variance between groups becomes zero.
    """
    order = [*np.flatnonzero(rows.period), *rows.inside]
    D = rows.deviations(np.column_stack([rows.y, rows.X[:, order]]))
    kept = [i for i in range(1, D.shape[1]) if i - 1 not in dependent_columns(D[:, 1:])]
    inside = least_squares(D[:, kept], D[:, 0])
    df = len(rows.y) - rows.count - len(kept)
    if df < 1:
        raise DataError("there are too few rows within groups for a variance within them: no group has rows to spare")
    residual = float(inside.residuals @ inside.residuals) / df
    means, columns = rows.across
    if rows.spare < 1:
        raise DataError(
            f"the variance between groups by Swamy and Arora needs more groups than coefficients, and there are {rows.count} "
            f"groups for {len(columns)}; use random='reml'"
        )
    scaled = means * np.sqrt(rows.sizes)[:, None]
    B = scaled[:, 1:][:, columns]
    found = least_squares(B, scaled[:, 0])
    weight = np.trace(found.bread @ (B.T @ (B * rows.sizes[:, None])))
    spread = float(found.residuals @ found.residuals) - found.df * residual
    return Variances(max(spread / (len(rows.y) - float(weight)), 0.0), residual)


def of_variances(variances: Variances, rows: PanelRows, kind: str) -> Estimate:
    """Random effects with known variances: generalised least squares."""
    return _of_least_squares(rows.names, variances.whitened(rows, rows.X), rows, kind)


# -- within, by pyfixest --------------------------------------------------------------------------------------


def pyfixest() -> Any:
    """The package, or a sentence on how to get it."""
    try:
        return import_module("pyfixest")
    except ImportError as error:
        raise OptionError(
            "the within estimate needs pyfixest, which is not installed: pip install 'multilevel[panel]'; or leave it out: "
            "estimators=('pooled', 'between', 'random', 'mundlak')"
        ) from error


def within(rows: PanelRows, response: str, group: str, time: str | None, kind: str) -> Estimate:
    """Least squares with an effect of every group (and period), by pyfixest."""
    package = pyfixest()
    inside = rows.inside
    words = _plain([response, group, *([time] if time else []), *(rows.names[i] for i in inside)])
    effects, slopes = words[1 : 3 if time else 2], words[3 if time else 2 :]
    values, scale = _scaled(rows, np.column_stack([rows.y, rows.X[:, inside]]))
    columns: dict[str, Any] = dict(zip([words[0], *slopes], values.T, strict=True))
    columns |= dict(zip(effects, [rows.group, rows.time], strict=False))
    text = f"{words[0]} ~ {' + '.join(slopes)} | {' + '.join(effects)}"
    errors: Any = {"group": {"CRV1": effects[0]}, "group+time": {"CRV1": "+".join(effects)}}.get(kind, kind)
    model, plain = _feols(package, text, columns, errors)
    coef = model.coef()
    at = [list(coef.index).index(name) for name in slopes]
    unit = scale[0] / scale[1:]
    squared, grid = np.outer(unit, unit), np.ix_(at, at)
    robust = np.array(model._vcov)[grid] * squared
    names, df = tuple(rows.names[i] for i in inside), np.full(len(inside), float(model._df_t))
    return Estimate(names, coef.to_numpy()[at] * unit, robust, plain[grid] * squared, df, int(model._N), model)


def _feols(package: Any, text: str, columns: dict[str, Any], errors: Any) -> tuple[Any, Array]:
    """The fit with the errors asked for, and its classical covariance."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on names of arguments in other packages
        try:
            model = package.feols(text, pd.DataFrame(columns), vcov="iid", fixef_rm="singleton", fixef_tol=1e-10)
            plain = np.array(model._vcov)  # there is no public name for the covariance
            model.vcov(errors)
        except Exception as error:  # of many types
            raise DataError(
                f"pyfixest could not fit the within regression: {str(error) or type(error).__name__}; leave 'within' out "
                "of estimators= to see the others"
            ) from error
    return model, plain


def _scaled(rows: PanelRows, columns: Array) -> tuple[Array, Array]:
    """Columns (n, k) with those of awkward size centred and scaled, and what they were divided by.

    pyfixest stops, and drops columns, by differences that are absolute.
    """
    spread = np.sqrt(np.mean(rows.deviations(columns) ** 2, axis=0))
    awkward = (np.abs(columns).max(axis=0) > LARGE) | (spread < SMALL)
    scale = np.where(awkward & (spread > 0), spread, 1.0)
    return (columns - np.where(awkward, columns.mean(axis=0), 0.0)) / scale, scale


def _plain(names: list[str]) -> list[str]:
    """Names that stand in a formula without quotes, all different, close to the given ones."""
    out: list[str] = []
    for name in names:
        fit = (
            name
            if name.isidentifier() and name.isascii()
            else "x_" + re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
        )
        fit = fit + "_" if keyword.iskeyword(fit) else fit
        while fit in out:
            fit += "_"
        out.append(fit)
    return out
