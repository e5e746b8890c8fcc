"""Predictions and draws of generalised models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import predict as linear
from .errors import OptionError
from .frame import like

if TYPE_CHECKING:
    from .generalised import GeneralisedFit
    from .generalised_rows import Rows

Array = NDArray[np.float64]

NODES = 41  # of Gauss-Hermite quadrature over a normal linear predictor
TINY = 1e-300


def predict(
    fit: GeneralisedFit,
    new: Any,
    groups: Any,
    kind: str,
    new_levels: str,
    interval: str | None,
    level: float,
    marginal: bool,
    offset: Any,
    seed: Any,
) -> Any:
    """Predict rows.

    Parameters
    ----------
    new, groups, new_levels, level, offset, seed
        As for a linear model (`multilevel.predict.predict`); an offset is the log of the exposure for a log link.
    kind : {"response", "link"}
        Mean of the response (of a proportion, for counts of successes; extra zeros included), or the linear predictor. Of
        an ordinal response the probability of each category.
    interval : None, "confidence" or "prediction"
        Confidence: of the mean or linear predictor in that group. It carries the uncertainty of all parameters (fixed
        effects, covariances, dispersion, extra zeros, thresholds; delta method), of the known groups' effects, and the
        variance of new groups. It is taken through the link for kind "response"; means with extra zeros have theirs on the
        log scale, probabilities of categories on the logit scale.
        Prediction: limits of a new response, quantiles of its distribution averaged over the errors of the linear predictor
        and the variance of new groups and of groups left out. Counts have whole numbers; successes among trials proportions
        of the row's trials (``successes | trials(n)`` and ``cbind()`` where their columns are in the new rows, else one
        trial). Dispersion and share of extra zeros are taken as known.
    marginal : bool
        Mean over all groups in place of a typical one: the response is integrated over the random effects. Its confidence
        interval is by the delta method, on the scale of the link of that mean, and carries all parameters.

    Returns
    -------
    frame
        prediction and, with an interval, std_error, conf_low, conf_high. The standard error is that of the linear predictor,
        beside predictions on the scale of the response too; with extra zeros it is that of the counts' linear predictor and
        leaves the share of zeros out, which confidence limits carry. With marginal=True it is that of the mean itself. Of an
        ordinal response a column for each category and, with a confidence interval, ``<category>_low`` and
        ``<category>_high``; with a prediction interval conf_low and conf_high, the ends of the central categories.
    """
    _check(kind, new_levels, interval, marginal)
    table = linear.predict(
        fit,
        new,
        groups=groups,
        new_levels=new_levels,
        level=level,
        marginal=marginal,
        offset=offset,
        seed=seed,
    )
    eta = np.asarray(table["prediction"], dtype=np.float64)
    names = [] if marginal else linear.group_names(fit, groups)
    from .generalised_rows import check_reciprocal, rows_of

    if interval is None and not marginal:
        columns = _points(fit, new, eta, kind)
    else:
        rows = rows_of(fit, new, names, offset, eta, interval == "prediction", marginal)
        if marginal:
            check_reciprocal(fit, rows)
        made = _with_interval(fit, new, rows, kind, interval, level, marginal)
        columns = {name: _spread(rows, values) for name, values in made.items()}
    out = like(fit.design.kind if new is None else linear_kind(new), columns)
    index = getattr(table, "index", None)
    if index is not None and hasattr(out, "index"):
        out.index = index
    return out


def _check(kind: str, new_levels: str, interval: str | None, marginal: bool) -> None:
    if kind not in ("response", "link"):
        raise OptionError(f"kind {kind!r} is not known; allowed are 'response', 'link'")
    if interval not in (None, "confidence", "prediction"):
        raise OptionError(f"interval {interval!r} is not known; allowed are None, 'confidence' and 'prediction'")
    if marginal is True and kind == "link":
        raise OptionError(
            "marginal=True is the mean of the response over all groups; the linear predictor's is that of a typical group: "
            "use groups=None with kind='link'"
        )
    if interval == "prediction" and kind == "link":
        raise OptionError("interval='prediction' is of a new response; use kind='response', or interval='confidence'")
    if interval is not None and new_levels == "sample":
        raise OptionError(
            "new_levels='sample' draws the effects an interval would describe; use 'population' with one"
        )


def _points(fit: GeneralisedFit, new: Any, eta: Array, kind: str) -> dict[str, Array]:
    """Predictions alone."""
    if kind == "link":
        return {"prediction": eta}
    if fit.family.name == "ordinal":
        steps = fit.categories_at(eta)
        return {label: steps[:, i] for i, label in enumerate(fit.design.labels)}
    first, second = row_parameters(fit, new, len(eta))
    known, out = np.isfinite(eta), np.full(len(eta), np.nan)
    out[known] = fit._mean(eta[known], first[known], second[known])
    return {"prediction": out}


def _spread(rows: Rows, values: NDArray[Any]) -> NDArray[Any]:
    """Values of the complete rows among all rows asked for."""
    if values.dtype != object:
        return rows.made.spread(values)
    out = np.full(rows.made.n, None, dtype=object)
    out[rows.made.at] = values
    return out


def _with_interval(
    fit: GeneralisedFit, new: Any, rows: Rows, kind: str, interval: str | None, level: float, marginal: bool
) -> dict[str, NDArray[Any]]:
    """Columns of the complete rows."""
    from .generalised_rows import expected

    if interval == "prediction":
        return _new_response(fit, new, rows, level)
    if interval is None and fit.family.name != "ordinal":
        return {"prediction": expected(fit, rows)[:, 0]}
    if kind == "response" and fit.family.name == "ordinal":
        return _categories(fit, rows, interval, level)
    return _marginal(fit, rows, level) if marginal else _conditional(fit, rows, kind, level)


def _conditional(fit: GeneralisedFit, rows: Rows, kind: str, level: float) -> dict[str, NDArray[Any]]:
    """Linear predictor or mean given the groups, with a confidence interval."""
    from .generalised_rows import expected
    from .generalised_uncertainty import joint_vcov

    error, wide = np.sqrt(rows.errors.variance(joint_vcov(fit))), _wide(level)
    low, high = rows.eta - wide * error, rows.eta + wide * error
    if kind == "link":
        return {"prediction": rows.eta, "std_error": error, "conf_low": low, "conf_high": high}
    mean = expected(fit, rows)[:, 0]
    if fit.family.zero != "none" or fit.family.name == "lognormal":
        low, high = _limits(fit, rows, "log", level)[2:]
        return {"prediction": mean, "std_error": error, "conf_low": low[:, 0], "conf_high": high[:, 0]}
    low, high = through_link(fit, low, high)
    return {"prediction": mean, "std_error": error, "conf_low": low, "conf_high": high}


def through_link(fit: GeneralisedFit, low: Array, high: Array) -> tuple[Array, Array]:
    """Limits of the mean from those of the linear predictor, for rising, falling and folded links."""
    from .generalised_rows import POSITIVE, RECIPROCAL

    family = fit.family
    with np.errstate(all="ignore"):
        ends = family.mean(low), family.mean(high)
    bottom, top = np.minimum(*ends), np.maximum(*ends)
    if family.link == "sqrt":
        bottom = np.where((low < 0) & (high > 0), 0.0, bottom)
    if family.link in RECIPROCAL and family.name in POSITIVE:  # predictors at or below zero stand for a mean without bound
        bottom, top = np.where(high > 0, family.mean(np.maximum(high, 1e-300)), np.inf), np.where(low > 0, top, np.inf)
    if family.link == "identity" and family.name in POSITIVE:
        bottom, top = np.maximum(bottom, 0.0), np.maximum(top, 0.0)
    return bottom, top


def _marginal(fit: GeneralisedFit, rows: Rows, level: float) -> dict[str, NDArray[Any]]:
    """Mean over all groups with a confidence interval."""
    from .families import PROBABILITY

    link = fit.family.link
    scale = "logit" if link in PROBABILITY else "identity" if link == "identity" else "log"
    if fit.family.name == "gaussian":
        scale = "identity"
    if fit.family.name == "lognormal":
        scale = "log"
    mean, error, low, high = (one[:, 0] for one in _limits(fit, rows, scale, level))
    return {"prediction": mean, "std_error": error, "conf_low": low, "conf_high": high}


def _categories(
    fit: GeneralisedFit, rows: Rows, interval: str | None, level: float
) -> dict[str, NDArray[Any]]:
    """Probabilities of categories, with confidence limits if asked for."""
    from .generalised_rows import expected

    labels = fit.design.labels
    if interval is None:
        steps = expected(fit, rows)
        return {label: steps[:, i] for i, label in enumerate(labels)}
    steps, _, low, high = _limits(fit, rows, "logit", level)
    out = {label: steps[:, i] for i, label in enumerate(labels)}
    for i, label in enumerate(labels):
        out |= {f"{label}_low": low[:, i], f"{label}_high": high[:, i]}
    return out


def _limits(fit: GeneralisedFit, rows: Rows, scale: str, level: float) -> tuple[Array, Array, Array, Array]:
    """(m, c) means, standard errors and limits by the delta method on a scale: "identity", "log" or "logit"."""
    from scipy.special import expit, logit

    from .generalised_rows import delta, expected

    def on_scale(rows: Rows) -> Array:
        mean = expected(fit, rows)
        if scale == "identity":
            return mean
        return np.asarray(np.log(np.maximum(mean, TINY)) if scale == "log" else logit(np.clip(mean, TINY, 1 - 1e-16)))

    value, error = delta(fit, rows, on_scale)
    mean, half = expected(fit, rows), _wide(level) * error
    if scale == "identity":
        return mean, error, value - half, value + half
    if scale == "log":
        return mean, error * mean, np.exp(value - half), np.exp(value + half)
    return mean, error * mean * (1 - mean), expit(value - half), expit(value + half)


def _wide(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def _new_response(fit: GeneralisedFit, new: Any, rows: Rows, level: float) -> dict[str, NDArray[Any]]:
    """Means with limits of a new response."""
    from .generalised_intervals import category_limits, response_limits
    from .generalised_rows import expected, trials_of
    from .generalised_uncertainty import joint_vcov

    if fit.family.name == "ordinal":
        labels, steps = np.array(fit.design.labels, dtype=object), expected(fit, rows)
        low, high = category_limits(fit, rows, level)
        probabilities = {label: steps[:, i] for i, label in enumerate(fit.design.labels)}
        return {**probabilities, "conf_low": labels[low], "conf_high": labels[high]}
    limits = response_limits(fit, rows, trials_of(fit, new, rows.made), level)
    error = np.sqrt(rows.errors.variance(joint_vcov(fit)))
    return {"prediction": expected(fit, rows)[:, 0], "std_error": error, "conf_low": limits[0], "conf_high": limits[1]}


def column_names(table: Any) -> list[str]:
    """Columns of a frame of any library."""
    names = getattr(table, "column_names", None)
    return list(names if names is not None else table.columns)


def linear_kind(new: Any) -> str:
    from .frame import Table

    return Table(new).kind


def row_parameters(fit: GeneralisedFit, new: Any, n: int) -> tuple[Array, Array]:
    """(n,) further parameters of the rows asked for, NaN where a row is not complete."""
    if new is None:
        return fit._aligned(fit._parameters[0]), fit._aligned(fit._parameters[1])
    values = fit.optimum.residual
    sides = fit.design.at(new, groups=None, offset=np.zeros(n)).sides if fit.design.sides else {}
    out = [np.zeros(n), np.zeros(n)]
    at = 0
    for k, what in enumerate(
        ["dispersion"] * (fit.family.dispersion is not None) + ["zi"] * (fit.family.zero != "none")
    ):
        matrix = sides.get(what, np.ones((n, 1)))
        out[1 if what == "zi" else k] = matrix @ values[at : at + matrix.shape[1]]
        at += matrix.shape[1]
    return out[0], out[1]


def mean(fit: GeneralisedFit, eta: Array, first: Array, second: Array, spread: Array | None) -> Array:
    """Mean of the response at eta, or integrated over eta ~ N(eta, spread); NaN where eta is."""
    from .generalised_rows import edge, link_width
    from .normal_mean import normal_mean

    known, out = np.isfinite(eta), np.full(len(eta), np.nan)
    sd = np.zeros(int(known.sum())) if spread is None else np.sqrt(spread[known])
    first, second = first[known], second[known]

    def given(values: Array, rows: NDArray[np.intp]) -> Array:
        return fit._mean(edge(fit.family, values), first[rows], second[rows])

    tilt = 1.0 if fit.family.link == "log" or fit.family.name == "lognormal" else 0.0
    out[known] = normal_mean(given, eta[known], sd, link_width(fit.family), tilt)
    return out


def random_variance(fit: GeneralisedFit, new: Any, offset: Any) -> Array:
    """(n,) variance of the linear predictor between groups."""
    every = [t.group for t in fit.design.terms]
    rows = linear._fitted_rows(fit, every, True) if new is None else linear._new_rows(fit, new, [], offset, True)
    out = np.zeros(len(rows.X))
    for term in rows.terms:
        z = linear._columns(term)
        out += np.einsum("ij,jk,ik->i", z, fit.random_cov()[term.index], z)
    return rows.spread(out)


def draw_responses(fit: GeneralisedFit, n: int, kept: list[str], rng: np.random.Generator) -> Array:
    """(n, rows used) responses as the family takes them: successes, for counts of them."""
    d = fit.rows_of_data()
    first, second = fit._parameters
    out = np.empty((n, len(d.y)))
    for i in range(n):
        eta = draw_predictors(fit, kept, rng)
        if fit.family.name == "ordinal":
            out[i] = draw_categories(fit, eta, rng)
        else:
            out[i] = fit.family.draw(rng, eta, first, second, d.trials)
    return out


def draw_predictors(fit: GeneralisedFit, kept: list[str], rng: np.random.Generator) -> Array:
    """(rows used,) linear predictors, with new effects for the groups that are not kept."""
    d = fit.rows_of_data()
    eta = np.array(fit._eta[0])
    for t, term in enumerate(d.terms):
        z = np.ones((len(d.y), 1)) if term.Z is None else term.Z
        b = fit.optimum.b[t]
        if term.group not in kept:
            known = fit.design.known.get(term.group)
            noise = rng.standard_normal(b.shape) if known is None else known.draw(rng, b.shape[1])
            b = noise @ fit.optimum.lambdas[t].T
        eta += np.einsum("ij,ij->i", z, b[term.codes])
    return eta


def draw_categories(fit: GeneralisedFit, eta: Array, rng: np.random.Generator) -> Array:
    """(n,) numbers of categories, from zero."""
    from .families import Family

    link = Family("binomial", fit.family.link)
    cumulative = np.column_stack([link.mean(t - eta) for t in fit.optimum.residual])
    return np.asarray((rng.random(len(eta))[:, None] > cumulative).sum(axis=1), dtype=np.float64)
