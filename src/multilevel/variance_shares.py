"""Shares of variance: intraclass correlation and R squared, right for random slopes, weights and singular fits."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, MultilevelError, MultilevelWarning, OptionError
from .residuals import multipliers

if TYPE_CHECKING:
    from .fit import Fit

Array = NDArray[np.float64]

CHUNK = 2e7  # numbers of simulated responses held at once


@dataclass(frozen=True)
class RowMoments:
    """What the rows contribute to the shares, whatever the parameters.

    Attributes
    ----------
    fixed : (p, p) array
        Covariance of the fixed-effect columns (divisor n - 1): the variance of the fixed part is ``beta' fixed beta``.
    random : tuple of (k, k) arrays
        Per term R with R'R = Z'Z / n: the mean variance of effects with covariance F F' is the sum of squares of R F. A
        square root, for a year near 2000 costs half the digits that way.
    residual : float
        Mean over rows of the squared sd multiplier (1 / weight, variance functions): what sigma**2 is multiplied by for
        the residual variance of an average row. A serial correlation leaves variances as they are.
    """

    fixed: Array
    random: tuple[Array, ...]
    residual: float


def level_scales(fit: Fit, group: str) -> Array | None:
    """(J,) diagonal of a known covariance between levels, by which their variances differ; None without one."""
    known = (getattr(fit.design, "known", None) or {}).get(group)
    if known is None:
        return None
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import splu

    factor, count = splu(csc_matrix(known.precision)), len(known.levels)
    out = np.empty(count)
    for first in range(0, count, 256):
        at = np.arange(first, min(first + 256, count))
        unit = np.zeros((count, len(at)))
        unit[at, at - first] = 1.0
        out[at] = factor.solve(unit)[at, at - first]
    return out


def row_moments(fit: Fit, residual: float | None = None) -> RowMoments:
    """Moments of the rows; of a fit without its rows from the cross-products, where they suffice.

    `residual` stands in for the mean squared multiplier of the estimates.
    """
    d = fit.design
    if d.y is None:
        return _moments_of_blocks(fit)
    n = len(d.y)
    centred = d.X - d.X.mean(axis=0)
    random = []
    for term in d.terms:
        z = np.ones((n, 1)) if term.Z is None else term.Z
        scales = level_scales(fit, term.group)
        z = z if scales is None else np.sqrt(scales[term.codes])[:, None] * z
        random.append(np.linalg.qr(z, mode="r") / np.sqrt(n))
    residual = float(np.mean(multipliers(fit) ** 2)) if residual is None else residual
    return RowMoments(centred.T @ centred / (n - 1), tuple(random), residual)


def _moments_of_blocks(fit: Fit) -> RowMoments:
    from . import _core

    c = fit.engine.blocks
    weighted = c.unit != 1.0 or c.core.sum_log_w != 0.0 or fit.model.residual is not None
    if weighted or "Intercept" not in fit.design.names:
        fit.rows_of_data()  # weighted sums do not hold the plain ones, and means need a column of ones
    saved = _core.export_blocks(c.core)
    back = np.linalg.inv(c.x_basis)
    gram = back.T @ np.asarray(saved["xx"]).reshape(c.p, c.p) @ back
    sums = gram[fit.design.names.index("Intercept")]
    random: list[Array] = [np.empty(0)] * len(fit.design.terms)
    for f, group in enumerate(c.groups):
        by_level = np.asarray(saved[f"diag{f}"]).reshape(group.levels, group.k, group.k)
        scales = level_scales(fit, group.name)
        inner = by_level.sum(axis=0) if scales is None else np.einsum("j,jab->ab", scales, by_level)
        values, vectors = np.linalg.eigh(inner / c.n)
        root = (vectors * np.sqrt(np.maximum(values, 0))).T @ np.linalg.inv(group.basis)
        for t, part in zip(group.terms, group.slices, strict=True):
            random[t] = root[:, part]
    return RowMoments((gram - np.outer(sums, sums) / c.n) / (c.n - 1), tuple(random), 1.0)


@dataclass(frozen=True)
class Parts:
    """Variances of r parameter sets.

    Attributes
    ----------
    fixed, residual : (r,) arrays
    groups : (r, g) array
        Per grouping factor, in the order of the formula.
    """

    fixed: Array
    groups: Array
    residual: Array

    def icc(self) -> Array:
        """(r, 2): adjusted and conditional."""
        random = self.groups.sum(axis=1)
        return np.column_stack([random / (random + self.residual), random / (random + self.residual + self.fixed)])

    def icc_by_group(self) -> Array:
        """(r, 2 g): adjusted of every factor, then conditional of every factor."""
        base = (self.groups.sum(axis=1) + self.residual)[:, None]
        return np.hstack([self.groups / base, self.groups / (base + self.fixed[:, None])])

    def r2(self) -> Array:
        """(r, 2): marginal and conditional."""
        random = self.groups.sum(axis=1)
        total = self.fixed + random + self.residual
        return np.column_stack([self.fixed / total, (self.fixed + random) / total])


def group_list(fit: Fit) -> list[str]:
    """Grouping factors in the order of the formula."""
    return list(dict.fromkeys(t.group for t in fit.design.terms))


def parts_of(fit: Fit, moments: RowMoments, beta: Array, residual: Array, factors: list[tuple[Array, ...]]) -> Parts:
    """Variances at r parameter sets: beta (r, p), residual variance (r,), and per set each term's F, Cov(b) = F F'."""
    names = group_list(fit)
    groups = np.zeros((len(residual), len(names)))
    for i, one in enumerate(factors):
        for term, factor, root in zip(fit.design.terms, one, moments.random, strict=True):
            groups[i, names.index(term.group)] += float(np.sum((root @ factor) ** 2))
    fixed = np.maximum(np.einsum("ri,ij,rj->r", beta, moments.fixed, beta), 0.0)
    return Parts(fixed, groups, residual)


def estimated(fit: Fit, moments: RowMoments) -> Parts:
    """Variances at the estimates."""
    beta, residual = fit.optimum.beta[None, :], np.array([fit.sigma**2 * moments.residual])
    parts = parts_of(fit, moments, beta, residual, [tuple(fit.sigma * m for m in fit.optimum.lambdas)])
    if np.sqrt(parts.fixed[0]) < 1e-12 * max(float(np.abs(fit.optimum.beta).max(initial=0.0)), fit.sigma):
        return Parts(np.zeros(1), parts.groups, parts.residual)  # an intercept alone: rounding is no variance
    return parts


def simulated(fit: Fit, moments: RowMoments, n: int, seed: Any, progress: bool | None) -> Parts:
    """Variances of n refits to responses drawn from the fitted model."""
    from .predict import draw_responses, generator

    d, rng = fit.rows_of_data(), generator(seed)
    # what the compiled mass refits know
    free = fit.model.residual is None and all(t.structure in ("us", "diag") for t in d.terms)
    size = max(1, min(n, int(CHUNK // len(d.y))))
    found: list[Parts] = []
    lost = 0
    with _bar(n, progress) as bar:
        for first in range(0, n, size):
            ys = draw_responses(fit, min(size, n - first), [], rng)
            beta, residual, factors = _refitted(fit, moments, ys) if free else one_by_one(fit, ys, bar)
            lost += len(ys) - len(residual)
            found.append(parts_of(fit, moments, beta, residual, factors))
            if free:
                bar.add(len(ys))
    if lost > 0.5 * n:
        raise DataError(
            f"{lost} of {n} refits to simulated responses did not converge, too many for an interval; use interval=None"
        )
    if lost > 0.01 * n:
        warnings.warn(
            f"{lost} of {n} refits to simulated responses did not converge and were left out of the interval",
            MultilevelWarning,
            stacklevel=5,
        )
    stack = [np.concatenate([getattr(p, name) for p in found]) for name in ("fixed", "groups", "residual")]
    return Parts(*stack)


def _refitted(fit: Fit, moments: RowMoments, ys: Array) -> tuple[Array, Array, list[tuple[Array, ...]]]:
    """Beta, residual variance and factors of the refits that converged, all at once in the core."""
    from . import refits

    raw = refits.refit(fit.engine, fit.design, ys, fit.optimum)
    good = np.asarray(raw["converged"], dtype=bool)
    sigma = raw["sigma"][good]
    factors = [_factors(fit, theta, s) for theta, s in zip(raw["theta"][good], sigma, strict=True)]
    return raw["beta"][good], sigma**2 * moments.residual, factors


def one_by_one(fit: Fit, ys: Array, bar: Any = None) -> tuple[Array, Array, list[tuple[Array, ...]]]:
    """The same by a whole fit for each response, for structures that mass refits do not know."""
    from .refits import from_there

    found, residual = [], []
    for y in ys:
        # what cannot be fitted counts with what did not converge; neither is told one by one
        with warnings.catch_warnings(), contextlib.suppress(MultilevelError):
            warnings.simplefilter("ignore", MultilevelWarning)
            again = from_there(fit.model, fit.design, y, fit.optimum, fit.engine.threads)
            if again.convergence.converged:
                residual.append(again.sigma**2 * float(np.mean(multipliers(again) ** 2)))
                found.append(again.optimum)
        if bar is not None:
            bar.add(1)
    beta = np.array([o.beta for o in found]).reshape(len(found), len(fit.optimum.beta))
    return beta, np.array(residual), [tuple(o.sigma * m for m in o.lambdas) for o in found]


def _bar(n: int, progress: bool | None) -> Any:
    from .progress import Progress

    return Progress(n, "bootstrap", progress)


def _factors(fit: Fit, theta: Array, sigma: float) -> tuple[Array, ...]:
    out, at = [], 0
    for s in fit.engine.blocks.structures:
        out.append(sigma * s.to_lambda(theta[at : at + s.n_theta]))
        at += s.n_theta
    return tuple(out)


def _check(level: Any, interval: Any, n: Any) -> None:
    from .inference import check_level

    check_level(level)
    if interval is not None and not (isinstance(interval, str) and interval == "bootstrap"):
        raise OptionError(f"interval {interval!r} is not known; allowed are 'bootstrap' and None (no interval, quick)")
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 20:
        raise OptionError(f"n, the number of simulated responses, must be a whole number of at least 20; got {n!r}")


def _table(
    fit: Fit, what: str, level: float, interval: str | None, n: int, seed: Any, progress: bool | None
) -> dict[str, Array]:
    """Estimate and, with an interval, its percentile limits; `what` names the method of Parts."""
    moments = row_moments(fit)
    out = {"estimate": getattr(estimated(fit, moments), what)()[0]}
    if interval is not None:
        if fit.design.y is None:
            raise DataError(
                "the interval simulates responses for the rows, and this fit was saved without them; use interval=None, or "
                "save it with save(path, data=True)"
            )
        draws = getattr(simulated(fit, moments, int(n), seed, progress), what)()
        tails = np.array([0.5 - level / 2, 0.5 + level / 2])
        out["conf_low"], out["conf_high"] = np.quantile(draws, tails, axis=0)
    return out


def icc(
    fit: Fit,
    by_group: bool = False,
    level: float = 0.95,
    interval: str | None = "bootstrap",
    n: int = 1000,
    seed: Any = 0,
    progress: bool | None = None,
) -> Any:
    """Intraclass correlations; see `Fit.icc`."""
    from .model import check_flag

    check_flag("by_group", by_group)
    _check(level, interval, n)
    names = group_list(fit)
    if not names:
        raise OptionError("the model has no random effects, so there is no intraclass correlation; r2() works")
    table = _table(fit, "icc_by_group" if by_group else "icc", level, interval, n, seed, progress)
    kinds = np.array(["adjusted", "conditional"], dtype=object)
    if not by_group:
        return fit._frame({"kind": kinds, **table})
    groups = np.tile(np.array(names, dtype=object), 2)
    return fit._frame({"group": groups, "kind": np.repeat(kinds, len(names)), **table})


def r2(
    fit: Fit,
    level: float = 0.95,
    interval: str | None = "bootstrap",
    n: int = 1000,
    seed: Any = 0,
    progress: bool | None = None,
) -> Any:
    """Marginal and conditional R squared; see `Fit.r2`."""
    _check(level, interval, n)
    table = _table(fit, "r2", level, interval, n, seed, progress)
    return fit._frame({"kind": np.array(["marginal", "conditional"], dtype=object), **table})
