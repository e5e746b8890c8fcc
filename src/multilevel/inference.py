"""Standard errors, degrees of freedom and intervals of fixed effects and their contrasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .optimise import FLAT

if TYPE_CHECKING:
    from .fit import Fit
    from .optimise import Curvature
    from .reml import Engine, Optimum

Array = NDArray[np.float64]


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
    """Estimate, standard error and degrees of freedom of ``rows @ beta``, rows (m, p)."""
    optimum = fit.optimum
    estimate = rows @ optimum.beta
    std_error = np.sqrt(np.einsum("ij,jk,ik->i", rows, optimum.vcov, rows))
    if ddf == "none":
        return estimate, std_error, np.full(len(rows), np.inf)
    if ddf == "satterthwaite":
        return estimate, std_error, satterthwaite(fit.engine, optimum, fit.curvature, rows)
    raise OptionError(f"ddf {ddf!r} is not known; allowed are 'satterthwaite' and 'none'")


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
