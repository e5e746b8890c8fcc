"""The working linear model with expected (Fisher) weights in place of those of the likelihood's curvature at the data.

Pearson residuals have the response's expected variance, and belong to the weights ``(d mean / d eta)**2 / Var(y)`` (McCullagh
& Nelder 1989, Generalized Linear Models, 12.5-12.7; lme4's working weights). Of a binomial response with the logit link and a
Poisson one with the logarithm both weights are the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import crossprod
from .influence import Entry, Rows
from .laplace import SMALLEST_WEIGHT

if TYPE_CHECKING:
    from .generalised import GeneralisedFit
    from .reml import Engine

__all__ = ["expected_model", "expected_weights"]

Array = NDArray[np.float64]

SAME = 1e-9  # relative difference of weights that is none


def expected_weights(fit: GeneralisedFit) -> Array:
    """(n,) expected weights of the rows at the mode, prior weights in.

    ``(d mean / d eta)**2 / Var(y)`` with the extra zeros in both; of a lognormal response and Student's t, whose scores are
    no multiples of y less its mean, Fisher's information about the location.
    """
    d, family, eta = fit.rows_of_data(), fit.family, fit._eta[1]
    first, second = fit._parameters
    prior = np.ones(len(eta)) if d.weights is None else d.weights
    if family.name == "lognormal":
        w = np.exp(-2 * first)
    elif family.name == "student":
        w = (family.own_number + 1) / (family.own_number + 3) * np.exp(-2 * first)
    else:
        variance = np.maximum(fit._variance(eta, first, second), np.finfo(float).tiny)
        w = (mean_slope(fit) / np.sqrt(variance)) ** 2
    return np.asarray(np.maximum(prior * w, SMALLEST_WEIGHT / fit.model.laplace().unit ** 2))


def mean_slope(fit: GeneralisedFit) -> Array:
    """(n,) derivative of the mean, extra zeros included, by the linear predictor."""
    from . import _core
    from .families import Family

    family, eta = fit.family, fit._eta[1]
    first, second = fit._parameters
    slope = family.mean_slope(eta)
    if family.zero == "none":
        return slope
    counts = 1 / (1 + np.exp(second))
    if family.zero == "inflated":
        return np.asarray(counts * slope)
    zero = np.zeros(len(eta))
    log_zero, by_eta = _core.log_densities(Family(family.name, family.link).kernel, zero, None, eta, first, zero)[0].T[:2]
    above = -np.expm1(log_zero)
    return np.asarray(counts / above * (slope + family.mean(eta) * np.exp(log_zero) * by_eta / above))


def expected_model(fit: GeneralisedFit, observed: Rows) -> tuple[Rows, Engine]:
    """Rows and engine of the working linear model with expected weights; the fit's own where these are the same."""
    from . import _core

    c, old = fit.engine.blocks, observed.root_w
    root = np.sqrt(expected_weights(fit))
    if np.allclose(root, old, rtol=SAME, atol=0):
        return observed, fit.engine
    ratio = (root / old)[:, None]
    entries = tuple(Entry(e.group, e.codes, ratio * e.z) for e in observed.entries)
    rows = Rows(ratio * observed.x, entries, ratio[:, 0] * observed.y, observed.offsets, root, None)
    x, y = np.ascontiguousarray(observed.x / old[:, None]), np.ascontiguousarray(observed.y / old)
    levels, w = [g.levels for g in c.groups], np.ascontiguousarray(root**2)
    core = _core.build(c.rows.codes, c.rows.z, levels, x, y, w, fit.engine.threads)
    read = crossprod.Rows(c.rows.codes, c.rows.z, levels, x, w)
    return rows, type(fit.engine).of(replace(c, core=core, rows=read), fit.engine.threads)
