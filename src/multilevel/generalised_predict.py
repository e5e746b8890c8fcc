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

Array = NDArray[np.float64]

NODES = 41  # of Gauss-Hermite quadrature over a normal linear predictor


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
        As for a linear model (`multilevel.predict.predict`).
    kind : {"response", "link"}
        Mean of the response (of a proportion, for counts of successes; extra zeros included), or the linear predictor. Of
        an ordinal response the probability of each category.
    interval : None or "confidence"
        Of the linear predictor, taken through the link for kind "response" (and times the share that is no extra zero).
    marginal : bool
        Mean over all groups in place of a typical one: the response is integrated over the random effects.

    Returns
    -------
    frame
        prediction and, with an interval, std_error (of the linear predictor), conf_low, conf_high; of an ordinal response a
        column for each category.
    """
    if kind not in ("response", "link"):
        raise OptionError(f"kind {kind!r} is not known; allowed are 'response', 'link'")
    if interval not in (None, "confidence"):
        raise OptionError(
            f"interval {interval!r} is not available for generalised models; allowed are None and 'confidence'"
        )
    if marginal and (interval is not None or kind == "link"):
        raise OptionError(
            "marginal=True gives the mean of the response without an interval; leave interval and kind out"
        )
    table = linear.predict(
        fit,
        new,
        groups=groups,
        new_levels=new_levels,
        interval=interval,
        level=level,
        marginal=marginal,
        offset=offset,
        seed=seed,
    )
    columns = {str(name): np.asarray(table[name], dtype=np.float64) for name in column_names(table)}
    if kind == "response" and fit.family.name == "ordinal":
        columns = category_columns(fit, columns, interval, marginal)
    elif kind == "response":
        first, second = row_parameters(fit, new, len(columns["prediction"]))
        spread = random_variance(fit, new, offset) if marginal else None
        for name in ("prediction", "conf_low", "conf_high"):
            if name in columns:
                columns[name] = mean(fit, columns[name], first, second, spread)
    out = like(fit.design.kind if new is None else linear_kind(new), columns)
    index = getattr(table, "index", None)
    if index is not None and hasattr(out, "index"):
        out.index = index
    return out


def category_columns(
    fit: GeneralisedFit, columns: dict[str, Array], interval: str | None, marginal: bool
) -> dict[str, Array]:
    """Probability of each category, by its label."""
    if interval is not None or marginal:
        raise OptionError("probabilities of categories have no interval and no marginal mean in this version; leave both out")
    steps = fit.categories_at(columns["prediction"])
    return {label: steps[:, i] for i, label in enumerate(fit.design.labels)}


def column_names(table: Any) -> list[str]:
    """Columns of a frame of any library."""
    names = getattr(table, "column_names", None)
    return list(names if names is not None else table.columns)


def linear_kind(new: Any) -> str:
    from .frame import Table

    return Table(new).kind


def mean(fit: GeneralisedFit, eta: Array, first: Array, second: Array, spread: Array | None) -> Array:
    """Mean of the response at eta, or integrated over eta ~ N(eta, spread)."""
    known = np.isfinite(eta)
    out = np.full(len(eta), np.nan)
    if spread is None:
        out[known] = fit._mean(eta[known], first[known], second[known])
        return out
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    total = np.zeros(int(known.sum()))
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        moved = eta[known] + node * np.sqrt(spread[known])
        total += weight * fit._mean(moved, first[known], second[known])
    out[known] = total
    return out


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
            b = rng.standard_normal(b.shape) @ fit.optimum.lambdas[t].T
        eta += np.einsum("ij,ij->i", z, b[term.codes])
    return eta


def draw_categories(fit: GeneralisedFit, eta: Array, rng: np.random.Generator) -> Array:
    """(n,) numbers of categories, from zero."""
    from .families import Family

    link = Family("binomial", fit.family.link)
    cumulative = np.column_stack([link.mean(t - eta) for t in fit.optimum.residual])
    return np.asarray((rng.random(len(eta))[:, None] > cumulative).sum(axis=1), dtype=np.float64)
