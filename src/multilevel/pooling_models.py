"""The models beside a partially pooled one: its groups ignored, and each group on its own."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, MultilevelWarning, OptionError
from .formula import parse, render
from .frame import like
from .inflation import Unfitted
from .pooling_coefficients import Columns, Estimates, columns_of, no, normal, student, varying
from .pooling_own import Own, density_of, own_coefficients

if TYPE_CHECKING:
    from .design import Design
    from .fit import Fit
    from .generalised import GeneralisedFit
    from .model import Model
    from .posterior import Posterior

__all__ = [
    "NoPooling", "complete_model", "conditional_loglik", "curvature", "effective_parameters", "gaussian_loglik", "no_model",
    "squares",
]  # fmt: skip

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NoPooling:
    """The regression with coefficients of each group's own, and what all groups share besides.

    For a Gaussian response it is R's ``lm(y ~ 0 + group + group:x)``: one model with one residual variance, which gives each
    group the coefficients of a regression on its own rows. Made by `multilevel.pooling`.

    Attributes
    ----------
    model : Model
        The partially pooled one.
    columns : Columns
    own : Own
    held : GeneralisedFit or None
        Outside the Gaussian family: the fit whose dispersion, extra zeros and so on are taken as they are.
    sigma : float
        Residual sd (NaN without residual degrees of freedom; one outside the Gaussian family).
    npar : int
    loglik : float
        At its maximum; outside the Gaussian family given what `held` holds.
    """

    model: Model
    columns: Columns
    own: Own
    held: GeneralisedFit | None
    sigma: float
    npar: int
    loglik: float

    @property
    def nobs(self) -> int:
        """Rows used."""
        return len(self.model.design.y)

    @property
    def df_residual(self) -> int:
        """Rows less coefficients."""
        return self.nobs - self.own.rank

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return 2 * self.npar - 2 * self.loglik

    @cached_property
    def _df(self) -> float | None:
        return float(self.df_residual) if self.held is None else None

    def estimates(self, level: float = 0.95) -> Estimates:
        """(J, k) coefficients of the groups."""
        return no(self.own, self.columns, self.sigma, self._df, level)

    def coef(self, level: float = 0.95) -> Any:
        """Coefficients of each group: level, term, estimate, std_error, conf_low, conf_high."""
        c, found = self.columns, self.estimates(level)
        k = len(c.names)
        columns = {
            "level": np.repeat(np.asarray(c.levels, dtype=object), k),
            "term": np.tile(np.array(c.names, dtype=object), len(c.levels)),
            "estimate": found.estimate.ravel(),
            "std_error": found.std_error.ravel(),
            "conf_low": found.low.ravel(),
            "conf_high": found.high.ravel(),
        }
        return like(self.model.design.kind, columns)

    def eta(self, X: Array, Z: Array, codes: NDArray[Any], offset: Array | None) -> tuple[Array, Array]:
        """(m,) linear predictors and their standard errors; NaN for groups below zero and where rows do not tell."""
        estimate, error = np.full(len(X), np.nan), np.full(len(X), np.nan)
        known = codes >= 0
        found, variance, _ = self.own.at(codes[known], Z[known], X[known][:, self.columns.shared])
        estimate[known], error[known] = found, self.sigma * np.sqrt(variance)
        return (estimate if offset is None else estimate + offset), error

    def predict(self, new: Any = None, *, interval: str | None = None, level: float = 0.95, offset: Any = None) -> Any:
        """Predictions for the rows fitted or new ones, on the scale of the response.

        Parameters
        ----------
        new, level, offset
            As for a fit.
        interval : None, "confidence" or "prediction"
            The last for a Gaussian response.

        Returns
        -------
        frame
            prediction and, with an interval, std_error (of the linear predictor), conf_low, conf_high. Missing for groups
            that were not fitted, and where the group's rows do not determine it.
        """
        return predictions(self, new, interval, level, offset)


def complete_model(partial: Model, reml: bool = True, threads: int | None = None) -> Fit:
    """The model without its groups, on the same rows."""
    d, formula = partial.design, partial.formula
    recipe = replace(d.remake, terms=())
    model = partial.with_design(replace(d, terms=(), remake=recipe))
    fixed = d.remake.fixed if "." in formula.fixed else formula.fixed
    model._formula = parse(render(replace(formula, bars=(), fixed=fixed)))
    if partial.distribution is not None:
        model._quadrature = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)  # rows and rank: the partially pooled model says the same
        return model.fit(reml, threads=threads)


def gaussian_loglik(rss: float, n: int, weights: Array | None) -> float:
    """Maximum of the Gaussian log-likelihood, NaN where rows are fitted without error."""
    if not rss > 0:
        return float("nan")
    more = 0.0 if weights is None else float(np.log(weights).sum()) / 2
    return float(-n / 2 * (np.log(2 * np.pi * rss / n) + 1) + more)


def no_model(partial: Fit | Posterior, complete: Fit) -> NoPooling:
    """The model with each group on its own, on the same rows.

    Raises
    ------
    DataError
        Where its estimates are not found.
    """
    model = partial.model
    d, held = model.design, None
    columns = columns_of(d, d.terms[0].group)
    family, further = None, (np.zeros(len(d.y)), np.zeros(len(d.y)))
    if model.distribution is not None:
        held = _laplace(partial)
        family, further = held.family, held._parameters
    start = complete._eta[0] - (0.0 if d.offset is None else d.offset)
    density = density_of(d, family, *further)
    Z = varying(d, columns.terms)
    own = own_coefficients(Z, d.X[:, columns.shared], columns.codes, len(columns.levels), density, start)
    if not np.isfinite(own.values).all():
        raise DataError(
            "without pooling the coefficients of single groups were not found; look for values of the response or of "
            "predictors far beyond all others"
        )
    if held is not None:
        return NoPooling(model, columns, own, held, 1.0, own.rank + len(held.optimum.residual), own.loglik)
    rss, free = -2 * own.loglik, len(d.y) - own.rank
    rss = rss if rss > 1e-20 * float(d.y @ d.y) and free > 0 else 0.0
    sigma = float(np.sqrt(rss / free)) if rss > 0 else float("nan")
    return NoPooling(model, columns, own, None, sigma, own.rank + 1, gaussian_loglik(rss, len(d.y), d.weights))


def _laplace(partial: Fit | Posterior) -> GeneralisedFit:
    """The fit whose further parameters are held; of a posterior, its model's."""
    from .fit import Fit

    if isinstance(partial, Fit):
        return cast("GeneralisedFit", partial)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MultilevelWarning)
        return cast("GeneralisedFit", partial.model.fit())


def curvature(one: Fit | Posterior, own: NoPooling) -> Array:
    """(n,) of the log density of each row at the estimates, for a residual variance of one."""
    d = one.design
    if own.held is None:
        return np.ones(len(d.y)) if d.weights is None else d.weights
    return density_of(d, own.held.family, *own.held._parameters)(_predictors(one, own))[2]


def _predictors(one: Fit | Posterior, own: NoPooling) -> Array:
    """(n,) linear predictors of the rows given their groups, without offset."""
    from .posterior import Posterior

    d = one.design
    if isinstance(one, Posterior):
        beta, b = one.mean_beta, [one.mean_b(t) for t in own.columns.terms]
    else:
        beta, b = one.optimum.beta, [one.optimum.b[t] for t in own.columns.terms]
    return np.asarray(
        d.X @ beta + np.einsum("ij,ij->i", varying(d, own.columns.terms), np.hstack(b)[own.columns.codes])
    )


def squares(design: Design, eta: Array) -> float:
    """Weighted sum of squared residuals."""
    left = design.y - eta
    return float((left**2 if design.weights is None else design.weights * left**2).sum())


def conditional_loglik(fit: Fit, own: NoPooling) -> float:
    """Log-likelihood of the rows given the groups' effects."""
    d = fit.design
    if own.held is None:
        return gaussian_loglik(squares(d, fit._eta[1]), len(d.y), d.weights)
    density = density_of(d, own.held.family, *own.held._parameters)
    return float(density(_predictors(fit, own))[0].sum())


def effective_parameters(fit: Fit, own: NoPooling) -> float:
    """Trace of the matrix that turns (working) responses into fitted values."""
    d = fit.design
    parts = [
        (t, d.terms[t].codes, np.ones((len(d.y), 1)) if (z := d.terms[t].Z) is None else z) for t in own.columns.terms
    ]
    variance = fit.engine.estimation_var(fit.optimum, d.X, parts)
    scale = fit.sigma**2 if own.held is None else 1.0
    return float(curvature(fit, own) @ variance / scale)


def predictions(one: NoPooling, new: Any, interval: str | None, level: float, offset: Any) -> Any:
    """See `NoPooling.predict`."""
    from . import predict as linear
    from .generalised_predict import row_parameters
    from .inference import check_level

    check_level(level)
    if interval not in (None, "confidence", "prediction"):
        raise OptionError(f"interval {interval!r} is not known; allowed are None, 'confidence' and 'prediction'")
    if interval == "prediction" and one.held is not None:
        raise OptionError("without pooling there is no prediction interval of this family; use interval='confidence'")
    shape: Any = Unfitted(one.model.design, one.model)
    names = [one.columns.group]
    rows = (
        linear._fitted_rows(shape, names, False) if new is None else linear._new_rows(shape, new, names, offset, False)
    )
    Z = np.hstack([linear._columns(term) for term in rows.terms])
    eta, error = one.eta(rows.X, Z, rows.terms[0].codes, rows.offset)
    further = None if one.held is None else [part[rows.at] for part in row_parameters(one.held, new, rows.n)]
    columns = {"prediction": _mean(one, eta, further)}
    if interval is not None:
        spread = error
        if interval == "prediction":
            spread = np.sqrt(error**2 + one.sigma**2 / (1.0 if rows.weights is None else rows.weights))
        half = (normal(level) if one._df is None else student(level, one._df)) * spread
        low, high = _ends(one, eta - half, eta + half, further)
        columns |= {"std_error": spread, "conf_low": low, "conf_high": high}
    out = like(rows.kind, {name: rows.spread(values) for name, values in columns.items()})
    source = one.model.data if new is None else new
    if rows.kind == "pandas" and len(getattr(source, "index", ())) == len(out):
        out.index = source.index
    return out


def _mean(one: NoPooling, eta: Array, further: list[Array] | None) -> Array:
    """(m,) means of the response, NaN where the linear predictor is."""
    if one.held is None or further is None:
        return eta
    known, out = np.isfinite(eta), np.full(len(eta), np.nan)
    out[known] = one.held._mean(eta[known], further[0][known], further[1][known])
    return out


def _ends(one: NoPooling, low: Array, high: Array, further: list[Array] | None) -> tuple[Array, Array]:
    """Limits of the mean from those of the linear predictor."""
    from .generalised_predict import through_link

    if one.held is None:
        return low, high
    if one.held.family.zero == "none" and one.held.family.name != "lognormal":
        return through_link(one.held, low, high)
    return _mean(one, low, further), _mean(one, high, further)
