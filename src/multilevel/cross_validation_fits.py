"""Scores of left-out rows under a fit: predictive distributions and what they say of the responses.

The linear predictor of a left-out row is normal about its prediction, with the variance `predict` reports: that of the
coefficients and known groups' effects as estimated, and the whole variance of groups that were not fitted. Rows of one
left-out group share the group's effects, so their joint density is not the product of the single ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from . import cross_validation_integrals as integrals
from . import predict as linear
from .errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from .families import Family
    from .fit import Fit
    from .generalised import GeneralisedFit
    from .model import Model
    from .residuals import Residual

__all__ = ["Held", "Scores", "scores_of_fit"]

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

CRPS_DRAWS = 1000  # of the predictive distribution of a row


@dataclass(frozen=True)
class Held:
    """m rows that were left out, with what the model on all rows knows of them.

    Attributes
    ----------
    model : Model
        On all rows.
    at : (m,) int array
        Which of the rows that it uses.
    frame : pandas.DataFrame
        Their columns.
    offset : (m,) array or None
        Where the model was given an array.
    unit : (m,) int array
        Rows that are scored together; -1 for none.
    """

    model: Model
    at: NDArray[np.int64]
    frame: pd.DataFrame
    offset: Array | None
    unit: Codes

    def of(self, values: Array | None) -> Array | None:
        """Some array of the design at these rows."""
        return None if values is None else np.asarray(values[self.at], dtype=np.float64)

    @property
    def y(self) -> Array:
        """(m,) responses, as the family takes them."""
        return np.asarray(self.model.design.y[self.at], dtype=np.float64)

    def part(self, keep: NDArray[np.bool_]) -> Held:
        """Some of the rows."""
        offset = None if self.offset is None else self.offset[keep]
        frame = self.frame[keep].reset_index(drop=True)
        return replace(self, at=self.at[keep], frame=frame, offset=offset, unit=self.unit[keep])

    def parts(self) -> list[tuple[int, NDArray[np.intp]]]:
        """Units with their rows."""
        return [(int(u), np.flatnonzero(self.unit == u)) for u in np.unique(self.unit[self.unit >= 0])]


@dataclass(frozen=True)
class Scores:
    """What was predicted for m rows, and how well.

    Attributes
    ----------
    observed, prediction, log_score, crps : (m,) arrays
        Of proportions, where the family counts successes; no observed and predicted value of an ordinal response.
    joint : dict
        Unit -> joint log density of its rows.
    below, through : (m,) arrays
        Predictive probability of less than what was observed, and of that or less; the same where none is exactly so.
    """

    observed: Array
    prediction: Array
    log_score: Array
    crps: Array
    joint: dict[int, float]
    below: Array
    through: Array


def scores_of_fit(fit: Fit, held: Held, rng: np.random.Generator) -> Scores:
    """Score rows that a fit has not seen."""
    groups = list(dict.fromkeys(t.group for t in fit.design.terms))
    rows = linear._new_rows(fit, held.frame, groups, held.offset, False)
    point = rows.X @ fit.optimum.beta
    if rows.offset is not None:
        point = point + rows.offset
    for term in rows.terms:
        point += linear._contribution(fit, term, False, rng)
    if fit.generalised:
        return _generalised(cast("GeneralisedFit", fit), held, rows, point, rng)
    return _gaussian(fit, held, rows, point)


# -- linear models ----------------------------------------------------------------------------------------------------


def _gaussian(fit: Fit, held: Held, rows: linear._Rows, point: Array) -> Scores:
    weights, y = held.of(held.model.design.weights), held.y
    noise = fit.sigma * rows.residual_sd(fit, point) / (1.0 if weights is None else np.sqrt(weights))
    apart = linear._interval(fit, rows, point, "confidence", 0.95)["std_error"]
    sd = np.sqrt(apart**2 + noise**2)
    joint = {}
    for unit, index in held.parts():
        cov = predictor_cov(fit, rows, index) + noise_cov(fit, held, noise, index)
        joint[unit] = integrals.normal_joint(y[index], point[index], cov)
    log_score, crps = integrals.normal_log_score(y, point, sd), integrals.normal_crps(y, point, sd)
    rank = integrals.normal_rank(y, point, sd)
    return Scores(y, point, log_score, crps, joint, rank, rank)


def noise_cov(fit: Fit, held: Held, sd: Array, index: NDArray[np.intp]) -> Array:
    """(k, k) covariance of the residuals of some rows with these sds: serially correlated where the model says so."""
    correlation = correlation_of(held, index, fit.model.residual, fit.optimum.residual)
    return np.asarray(correlation * np.outer(sd[index], sd[index]))


def correlation_of(held: Held, index: NDArray[np.intp], residual: Residual | None, values: Array) -> Array:
    """(k, k) correlation of the residuals of some rows, at the parameters of their structure in the user's terms."""
    from . import residual_reader
    from .residuals import Residual, correlate

    if residual is None or residual.serial is None:
        return np.eye(len(index))
    model, at = held.model, held.at[index]
    design = replace(model.design, y=model.design.y[at], X=model.design.X[at], rows=model.design.rows[at])
    text = replace(model._residual_text, spreads=())
    try:
        own = residual_reader.on_rows(text, model._series, design, model._levels)
    except DataError:  # no two rows of one series
        return np.eye(len(index))
    root = correlate(Residual(own.serial, ()).at(residual.coordinates(values)[-1:], len(at)), np.eye(len(at)))
    return np.asarray(root.T @ root)


# -- covariance of linear predictors ----------------------------------------------------------------------------------


def predictor_cov(fit: Fit, rows: linear._Rows, index: NDArray[np.intp]) -> Array:
    """(k, k) covariance of the errors of some rows' linear predictors: estimates, known groups, groups not fitted.

    Its diagonal is the squared standard error of `predict` with ``interval="confidence"``.
    """
    x = rows.X[index]
    terms = [replace_rows(term, index) for term in rows.terms]
    some = any((term.codes >= 0).any() for term in terms)
    if fit.generalised:
        from .generalised_uncertainty import errors, joint_vcov

        own_fit = cast("GeneralisedFit", fit)
        along = errors(own_fit, x, terms).along
        cov = np.asarray(along @ joint_vcov(own_fit) @ along.T)
        if some:
            half = _half(fit, x - along[:, : x.shape[1]], terms)
            cov = cov + half.T @ half
    elif some:
        half = _half(fit, x, terms)
        cov = np.asarray(half.T @ half)
    else:
        cov = np.asarray(x @ fit.optimum.vcov @ x.T)
    for term, own in zip(terms, (fit.random_cov()[t.index] for t in terms), strict=True):
        z = linear._columns(term)
        unknown = term.codes < 0
        same = unknown[:, None] & unknown & (term.new_codes[:, None] == term.new_codes)
        cov = cov + np.where(same, z @ own @ z.T, 0.0)
    return np.asarray((cov + cov.T) / 2)


def replace_rows(term: Any, index: NDArray[np.intp]) -> Any:
    """A term of new rows on some of them."""
    z = None if term.Z is None else term.Z[index]
    return replace(term, codes=term.codes[index], Z=z, new_codes=term.new_codes[index])


def _half(fit: Fit, x: Array, terms: list[Any]) -> Array:
    """(q + p, k) H with ``H.T @ H`` the covariance of the errors of ``x'beta + z'b`` for known groups.

    As `Engine.estimation_var`, which has the diagonal, by triangular solves with the factor of the normal equations.
    """
    engine, optimum = fit.engine, fit.optimum
    c = engine.blocks
    offsets = np.concatenate([[0], np.cumsum([g.levels * g.k for g in c.groups])]).astype(np.int64)
    rhs = np.zeros((int(offsets[-1]) + c.p, len(x)))
    rhs[offsets[-1] :] = (x @ c.x_basis).T
    where = {t: (f, part) for f, g in enumerate(c.groups) for t, part in zip(g.terms, g.slices, strict=True)}
    for term in terms:
        f, part = where[term.index]
        group = c.groups[f]
        known = np.flatnonzero(term.codes >= 0)
        effects = linear._columns(term)[known] @ (group.basis @ optimum.engine_lambdas[f])[part]
        index = offsets[f] + term.codes[known].astype(np.int64)[:, None] * group.k + np.arange(group.k)
        rhs[index, known[:, None]] += effects
    with engine.lock:
        half = engine.state(optimum.reml, optimum.engine_lambdas).solve(rhs, False)
    return np.asarray(half) * (optimum.sigma / c.unit)


# -- other families ---------------------------------------------------------------------------------------------------


def _generalised(
    fit: GeneralisedFit, held: Held, rows: linear._Rows, point: Array, rng: np.random.Generator
) -> Scores:
    from .generalised_rows import further
    from .generalised_uncertainty import errors, joint_vcov

    draws = np.random.default_rng(rng.integers(0, 2**63))  # alike in all models, as joint scores take unlike many numbers
    first, second, _ = further(fit, held.frame, rows)
    sd = np.sqrt(np.maximum(errors(fit, rows.X, rows.terms).variance(joint_vcov(fit)), 0.0))
    everything = Outcome(fit.family, held, first, second, fit.optimum.residual)
    joint = {}
    for unit, index in held.parts():
        cov = predictor_cov(fit, rows, index)
        joint[unit] = integrals.joint_log_score(everything.part(index).log_density, point[index], cov, rng)
    mean = np.full(len(point), np.nan) if fit.family.name == "ordinal" else fit._mean(point, first, second)
    log_score = integrals.row_log_scores(everything.log_density, point, sd)
    crps, below, through = everything.by_draws(point, sd, draws)
    return Scores(everything.observed(), mean, log_score, crps, joint, below, through)


class Outcome:
    """Responses of m rows under a family: log densities and draws at any linear predictors.

    Parameters
    ----------
    family : Family
        Its shape (degrees of freedom, power) fixed.
    first, second : (m,) or (draws, m) arrays
        Log dispersion and logit of the share of extra zeros.
    cuts : (categories - 1,) array
        Thresholds of an ordinal response.
    """

    def __init__(self, family: Family, held: Held, first: Array, second: Array, cuts: Array) -> None:
        d = held.model.design
        self.family, self.first, self.second, self.cuts = family, first, second, cuts
        self.y, self.trials, self.weights = held.y, held.of(d.trials), held.of(d.weights)

    def part(self, index: NDArray[np.intp]) -> Outcome:
        """Some of the rows."""
        out = object.__new__(Outcome)
        out.family, out.cuts, out.y = self.family, self.cuts, self.y[index]
        out.first, out.second = self.first[..., index], self.second[..., index]
        out.trials = None if self.trials is None else self.trials[index]
        out.weights = None if self.weights is None else self.weights[index]
        return out

    def log_density(self, eta: Array) -> Array:
        """(..., m) log densities, times the rows' weights, at linear predictors (..., m)."""
        from . import _core

        if self.family.name == "ordinal":
            out = np.log(np.maximum(self._of_category(eta), 1e-300))
        else:
            given = (self.y, eta, self.first, self.second)
            columns = [np.ascontiguousarray(np.broadcast_to(one, eta.shape).ravel(), dtype=np.float64) for one in given]
            trials = None if self.trials is None else np.ascontiguousarray(np.broadcast_to(self.trials, eta.shape).ravel())
            found = _core.log_densities(self.family.kernel, columns[0], trials, *columns[1:])[0][:, 0]
            out = np.asarray(found).reshape(eta.shape)
        return np.asarray(out if self.weights is None else out * self.weights)

    def _of_category(self, eta: Array) -> Array:
        """(..., m) probabilities of the categories observed."""
        from .families import Family

        link = Family("binomial", self.family.link)
        cuts = np.concatenate([[-np.inf], self.cuts, [np.inf]])
        codes = self.y.astype(np.int64)
        upper, lower = cuts[codes + 1] - eta, cuts[codes] - eta
        flip = lower > 0  # the difference of two numbers near one has no digits; that of their complements has
        near, far = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
        if self.family.link == "cloglog":  # not symmetric
            return np.asarray(link.mean(upper) - link.mean(lower))
        return np.asarray(link.mean(near) - link.mean(far))

    def observed(self) -> Array:
        """(m,) responses, a proportion of counts of successes; NaN of categories."""
        if self.family.name == "ordinal":
            return np.full(len(self.y), np.nan)
        return self.y if self.trials is None else self.y / self.trials

    def draw(self, eta: Array, rng: np.random.Generator) -> Array:
        """(draws, m) responses as the family takes them, at linear predictors (draws, m)."""
        if self.family.name == "ordinal":
            from .row_draws import categories

            return categories(self.family, eta, np.broadcast_to(self.cuts, (len(eta), len(self.cuts))), rng)
        from .row_draws import drawn

        first, second = (np.broadcast_to(one, eta.shape) for one in (self.first, self.second))
        return drawn(self.family, rng, eta, first, second, self.trials)

    def by_draws(self, mean: Array, sd: Array, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Continuous ranked probability scores, and ranks of what was observed, for predictors ``N(mean, sd**2)``.

        The predictors are the quantiles of their distribution at even steps, so that only the responses are random. Of an
        ordinal response the score is that of the numbers of its categories.
        """
        from scipy.special import ndtri

        at = ndtri((np.arange(CRPS_DRAWS) + 0.5) / CRPS_DRAWS)[:, None]
        out = np.empty((3, len(mean)))
        size = max(1, 2_000_000 // CRPS_DRAWS)
        for begin in range(0, len(mean), size):
            index = np.arange(begin, min(begin + size, len(mean)))
            part = self.part(index)
            out[:, index] = part.against(part.draw(mean[index] + at * sd[index], rng))
        return out[0], out[1], out[2]

    def against(self, drawn: Array) -> tuple[Array, Array, Array]:
        """(m,) scores from (draws, m) responses, and the shares of draws below, and not above, what was observed."""
        scale: Any = 1.0 if self.trials is None or self.family.name == "ordinal" else self.trials
        return integrals.sample_crps(self.y / scale, drawn / scale), *integrals.sample_ranks(self.y, drawn)
