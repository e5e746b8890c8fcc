"""Rows of a generalised model to predict: linear predictors, further parameters and the errors of all of them.

Whatever is predicted is a function of a few numbers of a row: the linear predictor, its sd between groups, the parameters of
dispersion and extra zeros, the thresholds. `delta` carries the estimates' joint covariance through any such function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import predict as linear
from .errors import DataError
from .families import TRIALS
from .generalised_uncertainty import Errors, errors, joint_vcov, quadratic, spread
from .normal_mean import normal_mean

if TYPE_CHECKING:
    from .families import Family
    from .generalised import GeneralisedFit
    from .posterior import Posterior

__all__ = ["Rows", "delta", "edge", "expected", "link_width", "rows_of", "trials_of"]

Array = NDArray[np.float64]

STEP = 1e-5  # of central differences, relative to the scale of what moves
LINK_WIDTH = {"logit": 0.66, "probit": 0.5, "cloglog": 0.33, "cauchit": 0.2, "log": 0.33}
RECIPROCAL = ("inverse", "inverse_square")
POSITIVE = (
    "poisson", "nbinom2", "nbinom1", "gamma", "inverse_gaussian", "tweedie",
)  # fmt: skip  # families whose mean is above zero
TOP = 100.0  # of a logarithm
FAR = 5.0  # sds that a predictor must lie above zero for a mean under a reciprocal link


@dataclass(frozen=True)
class Rows:
    """m complete rows.

    Attributes
    ----------
    eta : (m,) array
        Linear predictors.
    first, second : (m,) arrays
        Log of the dispersion and logit of the share of extra zeros; zero where the family has none.
    cuts : (r,) array
        Thresholds of an ordinal response.
    sd : (m,) array
        Sd of the linear predictor between groups, over which a marginal mean integrates; zero else.
    """

    eta: Array
    first: Array
    second: Array
    cuts: Array
    sd: Array
    errors: Errors
    along_first: Array  # (m, s), as Errors.along
    along_second: Array
    along_sd: Array
    made: linear._Rows


def rows_of(
    fit: GeneralisedFit, new: Any, names: list[str], offset: Any, eta: Array, every: bool, marginal: bool
) -> Rows:
    """Rows of new data (or those fitted) with the errors of their parameters.

    Parameters
    ----------
    names : list of str
        Groups whose effects enter.
    eta : (n,) array
        Linear predictors of all rows asked for.
    every : bool
        Groups that are left out count with their whole variance.
    marginal : bool
        The mean is to be integrated over all groups.
    """
    both = every or marginal
    made = linear._fitted_rows(fit, names, both) if new is None else linear._new_rows(fit, new, names, offset, both)
    m, size = len(made.X), len(joint_vcov(fit))
    first, second, along = further(fit, new, made)
    found = errors(fit, made.X, made.terms if every or not marginal else [])
    sd, along_sd = spread(fit, m, made.terms) if marginal else (np.zeros(m), np.zeros((m, size)))
    cuts = fit.optimum.residual if fit.family.name == "ordinal" else np.empty(0)
    return Rows(eta[made.at], first, second, cuts, sd, found, along[0], along[1], along_sd, made)


def further(fit: GeneralisedFit, new: Any, made: linear._Rows) -> tuple[Array, Array, list[Array]]:
    """Dispersion and extra zeros of each row, on their scales, and their derivatives by the parameters."""
    m, size = len(made.X), len(joint_vcov(fit))
    values, along = [np.zeros(m), np.zeros(m)], [np.zeros((m, size)), np.zeros((m, size))]
    if fit.family.name == "ordinal":
        return values[0], values[1], along
    sides = side_matrices(fit, new, made)
    p, at = len(fit.optimum.beta), 0
    for what in ["dispersion"] * (fit.family.dispersion is not None) + ["zi"] * (fit.family.zero != "none"):
        matrix = sides.get(what, np.ones((m, 1)))
        end, k = at + matrix.shape[1], int(what == "zi")
        values[k] = matrix @ fit.optimum.residual[at:end]
        along[k][:, p + at : p + end] = matrix
        at = end
    return values[0], values[1], along


def side_matrices(fit: GeneralisedFit, new: Any, made: linear._Rows) -> dict[str, Array]:
    """Matrices of the dispersion and zero-inflation formulas on the complete rows."""
    if not fit.design.sides:
        return {}
    if new is None:
        return {what: matrix for what, (matrix, _) in fit.design.sides.items()}
    sides = fit.design.at(new, groups=None, offset=np.zeros(made.n)).sides
    return {what: matrix[made.at] for what, matrix in sides.items()}


def delta(fit: GeneralisedFit, rows: Rows, function: Callable[[Rows], Array]) -> tuple[Array, Array]:
    """Values (m, c) of a function of rows and their standard errors by the delta method.

    The derivatives are central differences by each of a row's numbers; these are linear in the parameters.
    """
    value, cov = function(rows), joint_vcov(fit)
    scale = np.abs(rows.eta) if fit.family.link in RECIPROCAL else np.maximum(1.0, np.abs(rows.eta))
    total = np.zeros((*value.shape, len(cov)))

    def slope(name: str, step: Array | float, at: Any = slice(None)) -> Array:
        ends = []
        for sign in (1.0, -1.0):
            moved = np.array(getattr(rows, name))
            moved[at] += sign * np.asarray(step)
            change: dict[str, Any] = {name: moved}
            ends.append(function(replace(rows, **change)))
        return np.asarray((ends[0] - ends[1]) / (2 * np.reshape(step, (-1, 1))))

    by_eta = slope("eta", STEP * np.maximum(scale, 1e-300))
    total += by_eta[:, :, None] * rows.errors.along[:, None, :]
    for name, along in (("first", rows.along_first), ("second", rows.along_second), ("sd", rows.along_sd)):
        if along.any():
            total += slope(name, STEP)[:, :, None] * along[:, None, :]
    p = len(fit.optimum.beta)
    for k in range(len(rows.cuts)):
        total[:, :, p + k] += slope("cuts", STEP, k)
    variance = quadratic(total.reshape(-1, len(cov)), cov).reshape(value.shape) + by_eta**2 * rows.errors.apart[:, None]
    return value, np.sqrt(np.maximum(variance, 0.0))


def expected(fit: GeneralisedFit, rows: Rows) -> Array:
    """(m, c) means of the response (c = 1), or probabilities of the categories; integrated over groups where rows say so."""
    family = fit.family
    if family.name == "ordinal":
        tops = [_cumulative(family, cut, rows) for cut in rows.cuts]
        none = np.zeros(len(rows.eta))
        return np.diff(np.column_stack([none, *tops, none + 1]), axis=1)
    eta = edge(family, rows.eta)

    def mean(values: Array, at: NDArray[np.intp]) -> Array:
        return family.expected(edge(family, values), rows.first[at], rows.second[at])

    tilt = 1.0 if family.link == "log" or family.name == "lognormal" else 0.0
    return normal_mean(mean, eta, np.abs(rows.sd), link_width(family), tilt)[:, None]


def _cumulative(family: Family, cut: float, rows: Rows) -> Array:
    """(m,) probabilities of the categories up to a threshold."""
    from .families import Family

    link = Family("binomial", family.link)
    return normal_mean(lambda values, _: link.mean(cut - values), rows.eta, np.abs(rows.sd), link_width(family))


def link_width(family: Family) -> float:
    """Step on the scale of the linear predictor that the mean's curve allows; see `normal_mean`."""
    return LINK_WIDTH.get(family.link, 1.0)


def edge(family: Family, eta: Array) -> Array:
    """Linear predictors where the family has a mean: a link that can leave it is held at its edge."""
    if family.link == "log":
        return np.minimum(eta, TOP)
    if family.name in POSITIVE and family.link in ("identity", *RECIPROCAL):
        return np.maximum(eta, 1e-100 if family.link == "identity" else 1e-8)  # means may be small
    return eta


def check_reciprocal(fit: GeneralisedFit, rows: Rows) -> None:
    """Refuse a mean over groups where the linear predictor comes near zero, over which its reciprocal has no mean."""
    if fit.family.link not in RECIPROCAL:
        return
    bad = np.flatnonzero(np.abs(rows.eta) < FAR * rows.sd)
    if len(bad):
        i = bad[0]
        raise DataError(
            f"the mean over groups does not exist in row {int(rows.made.at[i])} (counting from 0): with link "
            f"{fit.family.link!r} it is the mean of a reciprocal, and the linear predictor, {rows.eta[i]:.3g} with sd "
            f"{rows.sd[i]:.3g} between groups, comes near zero; use groups=None for the mean of a typical group"
        )


def proportions(fit: GeneralisedFit) -> bool:
    """Whether successes were given as proportions, with their trials as weights."""
    from .responses import _CBIND, _TRIALS

    text, counts = fit.design.response, fit.family.name in TRIALS and fit.design.trials is not None
    return counts and not _CBIND.match(text) and not _TRIALS.match(text)


def trials_of(fit: GeneralisedFit | Posterior, new: Any, made: linear._Rows) -> Array | None:
    """(m,) trials of each row: as in the data, or as the new rows have them; one where they do not say.

    None for families that count no successes.
    """
    if fit.model.family not in TRIALS:
        return None
    m = len(made.X)
    if new is None:
        known = fit.rows_of_data().trials
        return np.ones(m) if known is None else known
    from .frame import Table
    from .responses import _CBIND, _TRIALS, _arguments, _values

    text, table = fit.design.response, Table(new)
    if (found := _TRIALS.match(text)) is not None:
        parts = [found[2]]
    elif (found := _CBIND.match(text)) is not None:
        parts = _arguments(found[1])
    else:
        column = getattr(fit.model, "_options", {}).get("weights")  # of proportions
        parts = [f"`{column}`"] if isinstance(column, str) and fit.design.trials is not None else []
    from .expressions import analyse

    needed = list(dict.fromkeys(name for part in parts for name in analyse(part.strip(), response=True).columns))
    if not parts or not set(needed) <= set(table.names):
        return np.ones(m)
    series = table.load(needed) if needed else {table.names[0]: table.load([table.names[0]])[table.names[0]]}
    total = np.sum([_values(part, series) for part in parts], axis=0)[made.at]
    bad = np.flatnonzero(np.isfinite(total) & ((total < 1) | (np.abs(total - np.round(total)) > 1e-8)))
    if len(bad):
        raise DataError(
            f"the number of trials is {total[bad[0]]:g} in row {int(made.at[bad[0]])} of the new rows (counting from 0); a "
            "prediction interval needs a whole number of at least 1"
        )
    return np.asarray(np.where(np.isfinite(total), np.round(total), np.nan))
