"""Coefficients of every group by complete, no and partial pooling, and how far partial pooling moves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .pooling_lines import _term_of

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit
    from .generalised import GeneralisedFit
    from .pooling_models import NoPooling
    from .pooling_own import Own
    from .posterior import Posterior

__all__ = [
    "Columns", "Estimates", "columns_of", "complete", "no", "normal", "partial", "population", "shrinkage", "student",
    "varying",
]  # fmt: skip

Array = NDArray[np.float64]

TOLERANCE = 1e-7
DRAWS = 400  # over which a posterior's shrinkage is averaged


@dataclass(frozen=True)
class Columns:
    """What varies by group and what does not.

    Attributes
    ----------
    group : str
    levels : (J,) array
    sizes : (J,) int array
        Rows of each group.
    trials : (J,) int array or None
        Trials of each group, where a row counts successes among several.
    codes : (n,) array
    names : tuple of str (k)
        Coefficients that vary.
    terms : tuple of int
        Random terms that hold them, in order.
    parts : (J, k, p) array
        Of each fixed effect in each group's coefficients: of a column that varies one; of one that is constant within groups
        its value there, in the intercept. NaN where a group's rows do not show it.
    shared : (c,) int array
        Fixed columns whose coefficient all groups share, without pooling too.
    folded : tuple of str
        Fixed columns that are constant within groups (or such a constant times a column that varies).
    """

    group: str
    levels: NDArray[Any]
    sizes: NDArray[np.int_]
    trials: NDArray[np.int_] | None
    codes: NDArray[np.int32]
    names: tuple[str, ...]
    terms: tuple[int, ...]
    parts: Array
    shared: NDArray[np.int_]
    folded: tuple[str, ...]

    @property
    def amount(self) -> NDArray[np.int_]:
        """How much is known of each group: its trials, or its rows where these are not counted."""
        return self.sizes if self.trials is None else self.trials

    @property
    def counted(self) -> str:
        """What `amount` counts."""
        return "row" if self.trials is None else "trial"


@dataclass(frozen=True)
class Estimates:
    """(J, k) coefficients with standard errors and limits; `state` says why one is missing (see `Own.at`)."""

    estimate: Array
    std_error: Array
    low: Array
    high: Array
    state: NDArray[np.int_]


def varying(design: Design, terms: tuple[int, ...]) -> Array:
    """(n, k) columns with an effect for each group."""
    parts = [design.terms[t].Z for t in terms]
    return np.hstack([np.ones((len(design.y), 1)) if one is None else one for one in parts])


def columns_of(design: Design, group: str) -> Columns:
    """Sort the columns of a model with one grouping factor."""
    term = _term_of(design, group)
    index = tuple(t for t, one in enumerate(design.terms) if one.group == group)
    Z, X, J = varying(design, index), design.X, len(term.levels)
    size = np.sqrt(np.einsum("ij,ij->j", Z, Z))
    scaled = Z / np.where(size > 0, size, 1.0)
    A = np.linalg.lstsq(scaled, X, rcond=1e-10)[0]
    left = np.linalg.norm(X - scaled @ A, axis=0)
    inside = left <= TOLERANCE * np.linalg.norm(X, axis=0)
    parts = np.zeros((J, Z.shape[1], X.shape[1]))
    parts[:, :, inside] = A[:, inside] / np.where(size > 0, size, 1.0)[:, None]
    parts[np.abs(parts) < 1e-12] = 0.0
    shared, folded = [], []
    for c in np.flatnonzero(~inside):
        found = next(
            ((k, r) for k in range(Z.shape[1]) if (r := _ratio(X[:, c], Z[:, k], term.codes, J)) is not None), None
        )
        if found is None:
            shared.append(int(c))
        else:
            parts[:, found[0], c] = found[1]
            folded.append(design.names[c])
    names = tuple(name for t in index for name in design.terms[t].names)
    sizes, common = np.bincount(term.codes, minlength=J), np.array(shared, dtype=np.int_)
    trials = _trials(design, term.codes, J)
    return Columns(group, term.levels, sizes, trials, term.codes, names, index, parts, common, tuple(folded))


def _trials(design: Design, codes: NDArray[np.int32], J: int) -> NDArray[np.int_] | None:
    """(J,) trials of the groups; None where each row is one."""
    if design.trials is None or (design.trials == 1).all():
        return None
    return np.bincount(codes, design.trials, J).round().astype(np.int_)


def _ratio(x: Array, z: Array, codes: NDArray[np.int32], J: int) -> Array | None:
    """(J,) what x is of z in each group, NaN where z is zero in all rows; None if it is not the same in a group's rows."""
    some = z != 0
    if (x[~some] != 0).any():
        return None
    out = np.full(J, np.nan)
    out[codes[some]] = x[some] / z[some]
    same = np.abs(out[codes[some]] * z[some] - x[some]) <= 1e-10 * np.abs(x).max()
    return out if same.all() else None


def normal(level: float) -> float:
    """Half-width of an interval in standard errors."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def student(level: float, df: float) -> float:
    """The same by Student's t; NaN without degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + level / 2)) if df > 0 else float("nan")


def _around(estimate: Array, error: Array, half: float, state: NDArray[np.int_] | None = None) -> Estimates:
    state = np.zeros(estimate.shape, dtype=np.int_) if state is None else state
    return Estimates(estimate, error, estimate - half * error, estimate + half * error, state)


def complete(fit: Fit, columns: Columns, level: float) -> Estimates:
    """The same coefficients for all groups, but for predictors that are constant within groups."""
    estimate = columns.parts @ fit.optimum.beta
    variance = np.einsum("jkp,pq,jkq->jk", columns.parts, fit.optimum.vcov, columns.parts)
    half = normal(level) if fit.generalised else student(level, fit.nobs - len(fit.optimum.beta))
    return _around(estimate, np.sqrt(variance), half)


def no(own: Own, columns: Columns, sigma: float, df: float | None, level: float) -> Estimates:
    """Each group's own; `df` None for the normal distribution."""
    J, k = len(columns.levels), len(columns.names)
    codes, unit = np.repeat(np.arange(J), k), np.tile(np.eye(k), (J, 1))
    estimate, variance, state = own.at(codes, unit, np.zeros((J * k, len(columns.shared))))
    half = normal(level) if df is None else student(level, df)
    error = sigma * np.sqrt(variance)
    return _around(estimate.reshape(J, k), error.reshape(J, k), half, state.reshape(J, k))


def population(complete_fit: Fit, without: NoPooling, fit: Fit | Posterior, level: float) -> Any:
    """Columns of `Pooling.population`."""
    from .posterior import Posterior
    from .posterior_lines import _flat, summaries

    names, columns, own = complete_fit.design.names, without.columns, without.own
    p, c = len(names), len(columns.shared)
    first = complete_fit.fixef_columns(level, ddf="none" if complete_fit.generalised else "satterthwaite")
    at = [list(first["term"]).index(name) for name in names]
    out = {"complete": [first[key][at] for key in ("estimate", "std_error", "conf_low", "conf_high")]}
    second = [np.full(p, np.nan) for _ in range(4)]
    if c:
        zero = np.zeros((c, len(columns.names)))
        estimate, variance, _ = own.at(np.zeros(c, dtype=np.int_), zero, np.eye(c))
        half = normal(level) if without._df is None else student(level, without._df)
        estimate[own.common_turn == 0] = np.nan  # the groups' own coefficients take it in
        found = _around(estimate, np.where(np.isnan(estimate), np.nan, without.sigma * np.sqrt(variance)), half)
        for column, values in zip(second, (found.estimate, found.std_error, found.low, found.high), strict=True):
            column[columns.shared] = values
    out["no"] = second
    if isinstance(fit, Posterior):
        beta = _flat(fit.draws_kept.beta)
        mean, low, high = summaries(beta, level)
        out["partial"] = [mean, beta.std(axis=0, ddof=1), low, high]
    else:
        third = fit.fixef_columns(level, ddf="none")
        out["partial"] = [third[key][at] for key in ("estimate", "std_error", "conf_low", "conf_high")]
    ends = ("", "_std_error", "_conf_low", "_conf_high")
    table = {f"{kind}{end}": values for kind, parts in out.items() for end, values in zip(ends, parts, strict=True)}
    return {"term": np.array(names, dtype=object), **table}


def partial(fit: Fit | Posterior, columns: Columns, level: float) -> Estimates:
    """Fixed effects plus those of the group, with the uncertainty of both."""
    from .posterior import Posterior

    if isinstance(fit, Posterior):
        return _of_draws(fit, columns, level)
    b = np.hstack([fit.optimum.b[t] for t in columns.terms])
    estimate = columns.parts @ fit.optimum.beta + b
    known = np.isfinite(estimate)
    variance = np.full(estimate.shape, np.nan)
    at = np.argwhere(known)
    variance[known] = _variances(fit, columns, at[:, 0].astype(np.int32), at[:, 1])
    return _around(estimate, np.sqrt(variance), normal(level))


def _variances(fit: Fit, columns: Columns, codes: NDArray[np.int32], which: NDArray[Any]) -> Array:
    """Variances of single coefficients of groups."""
    X, unit = np.ascontiguousarray(columns.parts[codes, which]), np.eye(len(columns.names))[which]
    pieces, at = [], 0
    for t in columns.terms:
        width = len(fit.design.terms[t].names)
        pieces.append((t, codes, np.ascontiguousarray(unit[:, at : at + width])))
        at += width
    if not fit.generalised:
        return np.asarray(fit.engine.estimation_var(fit.optimum, X, pieces))
    from .design_recipe import NewTerm
    from .generalised_uncertainty import errors, joint_vcov

    model, nothing = cast("GeneralisedFit", fit), np.empty(0, dtype=object)
    none = np.full(len(codes), -1, dtype=np.int32)
    terms = [NewTerm(t, columns.group, fit.design.terms[t].names, codes, z, none, nothing) for t, codes, z in pieces]
    return errors(model, X, terms).variance(joint_vcov(model))


def _of_draws(posterior: Posterior, columns: Columns, level: float) -> Estimates:
    from .posterior_lines import _flat, summaries

    beta = _flat(posterior.draws_kept.beta)
    out: list[list[Array]] = [[], [], [], []]
    place = [(t, i) for t in columns.terms for i in range(len(posterior.design.terms[t].names))]
    for k, (t, i) in enumerate(place):
        values = _flat(posterior.group_effects(t))[:, :, i] + beta @ columns.parts[:, k].T
        mean, low, high = summaries(values, level)
        for column, one in zip(out, (mean, values.std(axis=0, ddof=1), low, high), strict=True):
            column.append(one)
    found = [np.stack(column, axis=1) for column in out]
    return Estimates(found[0], found[1], found[2], found[3], np.zeros(found[0].shape, dtype=np.int_))


# -- shrinkage ------------------------------------------------------------------------------------------------------


def shrinkage(fit: Fit | Posterior, columns: Columns, curvature: Array | None = None) -> Array:
    """(J, k) share of the variance between groups that a group's rows leave unknown; see `Pooling.frame`.

    Parameters
    ----------
    curvature : (n,) array, optional
        Of a posterior: of the log density of each row, for a residual variance of one.
    """
    from .posterior import Posterior

    if not isinstance(fit, Posterior):
        cov, given = fit.random_cov(), fit.conditional_cov()
        left = np.hstack([np.einsum("jkk->jk", given[t]) for t in columns.terms])
        whole = np.concatenate([np.diag(cov[t]) for t in columns.terms])
        return np.asarray(np.where(whole > 0, left / np.where(whole > 0, whole, 1.0), 1.0))
    assert curvature is not None
    return _mean_shrinkage(fit, columns, curvature)


def _mean_shrinkage(posterior: Posterior, columns: Columns, curvature: Array) -> Array:
    """The same, averaged over draws of the variances."""
    from scipy.linalg import block_diag

    from .pooling_own import _gram
    from .posterior_lines import _flat, spread
    from .posterior_predict import sigma_of

    J, k = len(columns.levels), len(columns.names)
    gram = _gram(varying(posterior.design, columns.terms), curvature, columns.codes, J)
    kept = posterior.draws_kept
    some = spread(kept.chains * kept.draws, DRAWS)
    covs = [_flat(posterior.covariances(t))[some] for t in columns.terms]
    sigma = np.ones(len(some)) if posterior.model.distribution is not None else sigma_of(posterior).ravel()[some]
    out = np.zeros((J, k))
    for s, scale in enumerate(sigma):
        T = block_diag(*(one[s] for one in covs))
        left = np.linalg.solve(np.eye(k) + T @ gram / scale**2, np.broadcast_to(T, (J, k, k)))
        whole = np.diag(T)
        out += np.where(whole > 0, np.einsum("jkk->jk", left) / np.where(whole > 0, whole, 1.0), 1.0)
    return out / len(sigma)
