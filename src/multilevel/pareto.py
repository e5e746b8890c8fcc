"""Pareto-smoothed importance sampling.

Vehtari, Simpson, Gelman, Yao & Gabry (2024), J. Mach. Learn. Res. 25(72); the fit of the generalised Pareto distribution is
Zhang & Stephens (2009), Technometrics 51, 316.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["smoothed_log_weights"]

Array = NDArray[np.float64]


def smoothed_log_weights(log_weights: Array) -> tuple[Array, float]:
    """Log weights with their largest ones replaced by expected order statistics of a Pareto tail.

    Parameters
    ----------
    log_weights : (m,) array

    Returns
    -------
    (m,) array, float
        Smoothed log weights and the shape k of their tail; k is infinite where there are too few to say.
    """
    m = len(log_weights)
    out = log_weights - np.max(log_weights)
    tail = int(min(np.ceil(0.2 * m), np.ceil(3 * np.sqrt(m))))
    if tail < 5:
        return out, float("inf")
    order = np.argsort(out)
    largest = order[-tail:]
    cutoff = max(float(out[order[-tail - 1]]), float(np.log(np.finfo(float).tiny)))
    excess = np.exp(out[largest]) - np.exp(cutoff)
    if excess[-1] <= 0 or excess[-1] - excess[0] < 1e-12 * np.exp(cutoff):
        return out, 0.0  # all alike
    k, scale = fit_pareto(np.maximum(excess, 1e-300))
    if np.isfinite(k):
        shares = (np.arange(1, tail + 1) - 0.5) / tail
        quantiles = scale * np.expm1(-k * np.log1p(-shares)) / k if abs(k) > 1e-12 else -scale * np.log1p(-shares)
        out = out.copy()
        out[largest] = np.minimum(np.log(quantiles + np.exp(cutoff)), 0.0)
    return out, float(k)


def fit_pareto(x: Array) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution from its sorted values (m,), with a weak prior of the shape."""
    m = len(x)
    grid = 30 + int(np.sqrt(m))
    b = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    b = b / (3 * x[int(m / 4 + 0.5) - 1]) + 1 / x[-1]
    k = np.log1p(-b[:, None] * x).mean(axis=1)
    log_lik = m * (np.log(-b / k) - k - 1)
    weights = np.exp(log_lik - log_lik.max())
    weights = weights / weights.sum()
    keep = weights >= 10 * np.finfo(float).eps
    mean = float((b[keep] * weights[keep]).sum() / weights[keep].sum())
    shape = float(np.log1p(-mean * x).mean())
    return (m * shape + 5) / (m + 10), -shape / mean
