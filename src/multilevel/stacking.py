"""Weights of predictive distributions by stacking.

Yao, Vehtari, Simpson & Gelman (2018), Bayesian Analysis 13, 917.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GAP = 1e-9  # of the mean log score, by which the weights may fall short of the best ones
STEPS = 20_000
LEAST = 1e-12  # a weight of none, which still has a logarithm


def stacking_weights(pointwise: Array) -> Array:
    """Weights whose mixture predicts the rows left out best.

    Parameters
    ----------
    pointwise : (n, m) array
        Log predictive density of each row left out, a column per model.

    Returns
    -------
    (m,) array
        Not negative, with sum one; they maximise ``mean(log(exp(pointwise) @ w))``, which is concave.
    """
    from scipy.optimize import Bounds, LinearConstraint, minimize

    density = np.exp(pointwise - pointwise.max(axis=1, keepdims=True))
    m = density.shape[1]

    def minus_score(w: Array) -> float:
        return -float(np.mean(np.log(density @ w)))

    def slope(w: Array) -> Array:
        return np.asarray(-np.mean(density / (density @ w)[:, None], axis=0))

    found = minimize(
        minus_score,
        np.full(m, 1 / m),
        jac=slope,
        bounds=Bounds(np.full(m, LEAST), np.ones(m)),
        constraints=LinearConstraint(np.ones((1, m)), 1.0, 1.0),
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    w = np.clip(found.x, LEAST, 1.0) if np.isfinite(found.x).all() else np.full(m, 1 / m)
    return _polished(density, w / w.sum())


def _polished(density: Array, w: Array) -> Array:
    """Steps of the EM algorithm; the greatest slope less one bounds what is left to gain."""
    for _ in range(STEPS):
        slope = np.mean(density / (density @ w)[:, None], axis=0)
        if slope.max() - 1 < GAP:
            break
        w = w * slope
    w = np.where(w < 1e-9, 0.0, w)
    return np.asarray(w / w.sum())
