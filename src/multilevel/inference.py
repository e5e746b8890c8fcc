"""Standard errors, degrees of freedom, intervals and F tests of fixed effects and their contrasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError, nearest
from .optimise import FLAT

if TYPE_CHECKING:
    from .fit import Fit
    from .optimise import Curvature
    from .reml import Engine, Optimum

Array = NDArray[np.float64]

DDF = ("satterthwaite", "kenward-roger", "none")


def satterthwaite(engine: Engine, optimum: Optimum, facts: Curvature, contrasts: Array) -> Array:
    """Satterthwaite's degrees of freedom of ``contrasts @ beta``.

    ``df = 2 f**2 / (g' V g)`` with f the variance of the contrast, g its gradient by the covariance parameters and V
    their asymptotic covariance, from the exact Hessian (Satterthwaite 1946; Kuznetsova, Brockhoff & Christensen 2017,
    J. Stat. Softw. 82(13)). Directions whose variance was estimated as zero carry no uncertainty here.

    Parameters
    ----------
    contrasts : (m, p) array

    Returns
    -------
    (m,) array
        NaN where the Hessian has no positive direction to draw on.
    """
    df = engine.df(optimum.reml)
    with engine.lock:
        state = engine.state(optimum.reml, optimum.engine_lambdas)
        sigma, l_x = np.sqrt(state.r2 / df), state.l_x()
    rows = (contrasts @ engine.blocks.x_basis).T
    variance = _quadratic(l_x, rows) * sigma**2
    r = len(facts.directions)
    gradient = np.empty((r + 1, rows.shape[1]))
    for i, (up, down) in enumerate(facts.l_x):
        gradient[i] = sigma**2 * (_quadratic(up, rows) - _quadratic(down, rows)) / (2 * facts.steps[i])
    gradient[r] = 2 * variance / sigma
    hessian = np.empty((r + 1, r + 1))
    hessian[:r, :r] = facts.hessian
    hessian[r, :r] = hessian[:r, r] = -2 * facts.r2_slope / sigma**3
    hessian[r, r] = 4 * df / sigma**2
    # in relative units, or a large variance and a small one would not stand in one matrix
    units = np.array([*(max(1.0, d.size) for d in facts.directions), sigma])
    known = np.diag(hessian) * units**2 > FLAT
    root = np.sqrt(np.diag(hessian)[known])
    values, vectors = np.linalg.eigh(hessian[np.ix_(known, known)] / np.outer(root, root))
    keep = values > 1e-8 * values[-1]
    projected = vectors[:, keep].T @ (gradient[known] / root[:, None])
    spread = 2 * np.einsum("ij,i,ij->j", projected, 1 / values[keep], projected)
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Array = np.where(spread > 0, 2 * variance**2 / spread, np.nan)
    return out


def _quadratic(l_x: Array, rows: Array) -> Array:
    """Column sums of squares of L^{-1} rows."""
    half = np.linalg.solve(l_x, rows)
    out: Array = np.einsum("ij,ij->j", half, half)
    return out


def estimates(fit: Fit, rows: Array, ddf: str) -> tuple[Array, Array, Array]:
    """Estimate, standard error and degrees of freedom of linear combinations of the fixed effects.

    Parameters
    ----------
    rows : (m, p) array
        One combination per row, in the columns of `design.names`.
    ddf : {"satterthwaite", "kenward-roger", "none"}
        "kenward-roger" also adjusts the standard error, and needs a REML fit; "none" is the normal distribution.

    Returns
    -------
    tuple of (m,) arrays
        Of ``rows @ beta``; df is infinite for "none".

    Raises
    ------
    OptionError
        For another ddf, or where "kenward-roger" is not defined (see `kenward_roger.adjustment`).
    """
    check_ddf(ddf)
    if fit.generalised:
        ddf = _normal_only(ddf)
    optimum = fit.optimum
    estimate = rows @ optimum.beta
    if ddf == "kenward-roger":
        adjusted = fit.kenward_roger
        return estimate, _std_error(rows, adjusted.vcov), adjusted.degrees(rows)
    std_error = _std_error(rows, optimum.vcov)
    if ddf == "none":
        return estimate, std_error, np.full(len(rows), np.inf)
    return estimate, std_error, satterthwaite(fit.engine, optimum, fit.curvature, rows)


def f_test(
    fit: Fit, rows: Array, ddf: str = "satterthwaite", rhs: Array | None = None
) -> tuple[float, float, float, float]:
    """F test of ``rows @ beta == rhs``.

    Satterthwaite's denominator follows Fai & Cornelius (1996, J. Stat. Comput. Simul. 54): F is a mean of independent
    squared t of the eigenvectors of ``rows @ vcov @ rows.T``, each with its own df, and the F distribution with the
    same mean is taken (as lmerTest does). Kenward and Roger's F is the Wald statistic by the adjusted covariance times
    their factor (Kenward & Roger 1997; as pbkrtest). "none" is the chi-square test of the Wald statistic.

    Parameters
    ----------
    rows : (r, p) array
        May be dependent: the numerator df is their rank.
    ddf : {"satterthwaite", "kenward-roger", "none"}
    rhs : (r,) array, optional
        Default zero.

    Returns
    -------
    F, num_df, den_df, p
        NaN for F, den_df and p where there is nothing to test (num_df 0).

    Raises
    ------
    OptionError
        If dependent rows are given right-hand sides that cannot all hold.
    """
    check_ddf(ddf)
    if fit.generalised:
        ddf = _normal_only(ddf)
    rows, target = _independent(fit, rows, rhs)
    q = len(rows)
    if q == 0:
        return np.nan, 0.0, np.nan, np.nan
    statistic = _wald(fit, rows, target, ddf)
    if q == 1:
        den_df = float(estimates(fit, rows, ddf)[2][0])
    elif ddf == "kenward-roger":
        factor, den_df = fit.kenward_roger.scale(rows)
        statistic *= factor
    else:
        den_df = np.inf if ddf == "none" else _fai_cornelius(fit, rows)
    return statistic, float(q), den_df, f_tail(statistic, float(q), den_df)


def wald_f(fit: Fit, rows: Array, ddf: str) -> float:
    """Wald statistic of ``rows @ beta == 0`` over its rank, without Kenward and Roger's factor; NaN for no rows."""
    rows, target = _independent(fit, rows, None)
    return _wald(fit, rows, target, ddf) if len(rows) else np.nan


def f_tail(statistic: float, num_df: float, den_df: float) -> float:
    """P(F > statistic); the chi-square over num_df where den_df is infinite."""
    from scipy.special import chdtrc, fdtrc

    if not (statistic >= 0 and den_df > 0):
        return float("nan")
    return float(chdtrc(num_df, num_df * statistic) if np.isinf(den_df) else fdtrc(num_df, den_df, statistic))


def _fai_cornelius(fit: Fit, rows: Array) -> float:
    """Denominator df of a mean of squared t with their own df each."""
    cov = rows @ fit.optimum.vcov @ rows.T
    if np.linalg.eigvalsh(cov)[0] < 1e-10 * np.trace(cov):  # units too far apart for one decomposition
        rows = rows / np.sqrt(np.diag(cov))[:, None]
        cov = rows @ fit.optimum.vcov @ rows.T
    vectors = np.linalg.eigh(cov)[1]
    df = satterthwaite(fit.engine, fit.optimum, fit.curvature, vectors.T @ rows)
    if np.ptp(df) < 1e-8 * df.max():
        return float(df.mean())
    if np.any(df <= 2):
        return 2.0
    mean = float(np.sum(df / (df - 2)))
    return 2 * mean / (mean - len(df))


def _wald(fit: Fit, rows: Array, target: Array, ddf: str) -> float:
    gap = rows @ fit.optimum.beta - target
    vcov = fit.kenward_roger.vcov if ddf == "kenward-roger" else fit.optimum.vcov
    cov = rows @ vcov @ rows.T
    root = np.sqrt(np.diag(cov))
    scaled = gap / root
    return float(scaled @ np.linalg.solve(cov / np.outer(root, root), scaled)) / len(rows)


def _independent(fit: Fit, rows: Array, rhs: Array | None) -> tuple[Array, Array]:
    """The same hypothesis by independent rows, and its right-hand side: as given where independent already."""
    target = np.zeros(len(rows)) if rhs is None else np.asarray(rhs, dtype=np.float64)
    rows, target = rows[np.any(rows != 0, axis=1)], _without_empty(rows, target)
    if not len(rows):
        return rows, target
    vcov = fit.optimum.vcov
    size = _std_error(rows, vcov)
    root = np.sqrt(np.diag(vcov))
    values, vectors = np.linalg.eigh(vcov / np.outer(root, root))
    scaled = (rows * root) @ (vectors * np.sqrt(np.maximum(values, 0.0))) / size[:, None]
    u, s, _ = np.linalg.svd(scaled, full_matrices=True)
    rank = int(np.sum(s > 1e-8 * s[0]))
    if rank == len(rows):
        return rows, target
    turned = u.T @ (target / size)
    if np.abs(turned[rank:]).max() > 1e-8 * max(1.0, float(np.abs(target / size).max())):
        raise OptionError(
            "the hypotheses contradict each other: some are combinations of others, with another right-hand side"
        )
    return np.asarray(u.T[:rank] @ (rows / size[:, None])), np.asarray(turned[:rank])


def _without_empty(rows: Array, target: Array) -> Array:
    empty = ~np.any(rows != 0, axis=1)
    if np.any(target[empty] != 0):
        raise OptionError("a hypothesis has no coefficient on its left and a number other than 0 on its right")
    out: Array = target[~empty]
    return out


def _std_error(rows: Array, cov: Array) -> Array:
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", rows @ cov, rows)))


def _normal_only(ddf: str) -> str:
    """Generalised models have no finite degrees of freedom."""
    if ddf == "kenward-roger":
        raise OptionError("ddf 'kenward-roger' is for Gaussian models; generalised ones use the normal "
            "distribution, ddf='none'")
    return "none"


def check_ddf(ddf: Any) -> None:
    """Refuse a method for degrees of freedom that is not known."""
    if ddf not in DDF:
        hint = nearest(ddf, DDF)
        raise OptionError(f"ddf {ddf!r} is not known; {hint or 'allowed are ' + ', '.join(map(repr, DDF))}")


def t_table(estimate: Array, std_error: Array, df: Array, level: float) -> dict[str, Array]:
    """Statistic, two-sided p-value and interval; the normal distribution where df is infinite."""
    from scipy.special import ndtr, ndtri, stdtr, stdtrit

    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = estimate / std_error
    normal = np.isinf(df)
    finite = np.where(normal, 1.0, df)
    tail = -np.abs(statistic)
    p_value = 2 * np.where(normal, ndtr(tail), stdtr(finite, tail))
    half = np.where(normal, ndtri(0.5 + level / 2), stdtrit(finite, 0.5 + level / 2)) * std_error
    return {"statistic": statistic, "p_value": p_value, "conf_low": estimate - half, "conf_high": estimate + half}


def check_level(level: Any) -> None:
    """A coverage lies strictly between 0 and 1."""
    if isinstance(level, bool) or not isinstance(level, (int, float, np.number)) or not 0 < level < 1:
        raise OptionError(f"level must lie between 0 and 1, for example 0.95; got {level!r}")
